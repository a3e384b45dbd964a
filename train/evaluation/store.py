"""What was computed once stays on disk, under the hash of all that decides it: reruns are quick, kills lose little."""

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assistant.files import whole, write_text


class Store:
    """Results by kind and content; an entry appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def json(self, kind: str, content: Any, compute: Callable[[], Any]) -> Any:
        """The result of `compute` for this `content`, computed the first time only; both are JSON values."""
        path = self._path(kind, content, ".json")
        with contextlib.suppress(FileNotFoundError, ValueError):  # what a broken disk left is computed again
            return json.loads(path.read_text("utf-8"))
        result = compute()
        write_text(path, json.dumps(result, ensure_ascii=False))
        return result

    def array(self, kind: str, content: Any, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The same for an array."""
        path = self._path(kind, content, ".npy")
        with contextlib.suppress(FileNotFoundError, ValueError, EOFError):
            return np.asarray(np.load(path, allow_pickle=False))
        result = compute()
        with whole(path) as partial, partial.open("wb") as file:
            np.save(file, result)
        return result

    def _path(self, kind: str, content: Any, suffix: str) -> Path:
        return self._folder / kind / (hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24] + suffix)
