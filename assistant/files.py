"""The project's folders, files by name, and the one way to write a file whole and to read and write JSON lines.

Standard library only.
"""

import glob
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


def matching(given: str | Path) -> list[Path]:
    """What was meant: `given` itself when it is there, else the files and folders it stands for as a pattern, sorted.

    The shell of Windows leaves `*.wav` as it is. A file that is really called `take[1].wav` is taken at its word, and
    so is its folder. What matches nothing comes back as it was given, for whoever opens it to say so.
    """
    path = Path(given)
    if exists(path) or not glob.has_magic(str(given)):
        return [path]
    there = next(parent for parent in path.parents if exists(parent))
    pattern = str(path.relative_to(there))
    found = glob.glob(pattern, root_dir=there, recursive=True)  # noqa: PTH207  # pathlib's finds hidden files, too
    return [there / name for name in sorted(found)] or [path]


def exists(path: Path) -> bool:
    """Whether something has this name; False, where pathlib raises, for names that nothing can have."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def printable(text: object) -> str:
    """Text on one line that no terminal obeys: other characters become the escapes that JSON has for them."""
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in str(text))


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
