"""All that Earshot sets for its whole process: nothing else in the tree touches what other code in it can see."""

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from assistant.files import cache_directory

# Held while a lane works: two visitors, or two lanes, would otherwise be timed while they slow each other down.
MACHINE = threading.Lock()


_loading = threading.Lock()


def prepare() -> None:
    """Called once, by `import assistant`, before the libraries that look at these variables are imported."""
    # Nothing leaves this machine: these libraries may report usage unless told not to.
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1", ORT_DISABLE_TELEMETRY="1", DO_NOT_TRACK="1"
    )
    # Gradio decides on import where it puts folders that it may never use; nothing is written outside the cache.
    os.environ.setdefault("GRADIO_TEMP_DIR", str(cache_directory() / "gradio"))


@contextmanager
def loading_with_transformers() -> Iterator[None]:
    """Within this block transformers loads a model, for one thread at a time, without its bar for every tensor."""
    from transformers.utils import logging

    with _loading:
        logging.disable_progress_bar()
        yield


@contextmanager
def temporary_files_in(folder: Path) -> Iterator[None]:
    """Within this block all that passes through temporary files, Gradio's too, passes through `folder`."""
    before, os.environ["GRADIO_TEMP_DIR"] = os.environ["GRADIO_TEMP_DIR"], str(folder / "page")
    tempfile.tempdir = str(folder)  # uploads pass through there before they are complete
    try:
        yield
    finally:
        tempfile.tempdir = None
        os.environ["GRADIO_TEMP_DIR"] = before
