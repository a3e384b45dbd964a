"""The web page of Earshot: layout, words, pictures of time. Imports `assistant`, holds no model code."""

import os

from assistant.weights import cache_directory

# Gradio decides on import where it puts folders that it may never use; nothing is written outside the cache.
os.environ.setdefault("GRADIO_TEMP_DIR", str(cache_directory() / "gradio"))
