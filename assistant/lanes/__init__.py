"""The two ways from speech to a reply, and the conversations they are asked in."""
