"""The web page of Earshot: layout, words, pictures of time. Imports `assistant`, holds no model code."""
