"""What was computed once stays on disk, under the hash of all that decides it: reruns are quick, kills lose little."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


class Store:
    """Results by kind and content; an entry appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def json(self, kind: str, content: Any, compute: Callable[[], Any]) -> Any:
        """The result of `compute` for this `content`, computed the first time only; both are JSON values."""
        path = self._path(kind, content, ".json")
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        result = compute()
        partial = path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(result, ensure_ascii=False), "utf-8")
        os.replace(partial, path)
        return result

    def array(self, kind: str, content: Any, compute: Callable[[], np.ndarray]) -> np.ndarray:
        """The same for an array."""
        path = self._path(kind, content, ".npy")
        if path.exists():
            return np.asarray(np.load(path, allow_pickle=False))
        result = compute()
        partial = path.with_suffix(f".{os.getpid()}.partial.npy")
        np.save(partial, result)
        os.replace(partial, path)
        return result

    def _path(self, kind: str, content: Any, suffix: str) -> Path:
        folder = self._folder / kind
        folder.mkdir(parents=True, exist_ok=True)
        return folder / (hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24] + suffix)
