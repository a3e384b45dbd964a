"""Replies spoken aloud, while they are still being written."""
