"""The project's folders, and the one way to write a file whole and to read and write JSON lines. Standard library."""

import gzip
import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
SAMPLES = ASSETS / "samples"
CHECKPOINT = ASSETS / "checkpoints" / "v1"  # the speech-LLM that ships
DEFAULT_LLM = "qwen2.5-coder-0.5b-instruct"  # answers unless another is asked for; a name in models.toml


def cache_directory() -> Path:
    """Where converted weights live: `EARSHOT_CACHE`, or `earshot` in the user's cache directory."""
    if explicit := os.environ.get("EARSHOT_CACHE"):
        return Path(explicit)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return base / "earshot"


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path to write to within the block; at its end it becomes `path`, so that nobody ever sees half a file.

    When the block fails nothing is left. The name ends in `.partial` and is this process's own: several may write the
    same file, and the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, in UTF-8."""
    with whole(path) as partial:
        partial.write_text(text, "utf-8")


def write_json_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one object a line, as they come, whole."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, gzipped or not; blank lines are passed over.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        A line is no JSON object; the message says which.
    """
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(line, f"{path}, line {number}")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is no text in UTF-8: {error}") from error


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object: {line.strip()[:80]!r}")
    return row
