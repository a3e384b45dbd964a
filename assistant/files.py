"""The project's folders, files by name, and the one way to write a file whole and to read and write JSON lines.

Standard library only.
"""

import glob
import gzip
import json
import os
import platform
import re
import shutil
import sys
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "assets"
SAMPLES = ASSETS / "samples"
CHECKPOINT = ASSETS / "checkpoints" / "v1"  # the speech-LLM that ships
DAY = 24 * 60 * 60  # seconds
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

    When the block fails nothing is left, and what a kill leaves is deleted when the folder is next written to. The name
    ends in `.partial` and is this process's own: several may write the same file, and the last one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write to within the block; at its end its files take the place of those in `folder`, all at once.

    What else is in `folder` stays. When the block fails, `folder` is as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(folder)
    try:
        partial.mkdir()
        yield partial
        for file in sorted(path for path in partial.rglob("*") if path.is_file()):
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _partial(path: Path) -> Path:
    _sweep(path.parent.resolve())
    return path.with_name(f"{path.name}.{os.getpid()}-{platform.node()}.partial")


@cache
def _sweep(folder: Path) -> None:
    """Delete the partial files of processes that are gone; those of other machines when nobody wrote for a day."""
    for old in folder.glob("*.partial"):
        writer = re.search(r"\.(\d+)-(.*)\.partial$", old.name)
        try:
            if writer is None or (writer[2] == platform.node() and _runs(int(writer[1]))):
                continue
            if writer[2] == platform.node() or time.time() - old.stat().st_mtime > DAY:
                shutil.rmtree(old) if old.is_dir() else old.unlink()
        except OSError:
            continue  # another process deletes it, too, or it is open: Windows keeps what is


def _runs(process: int) -> bool:
    if sys.platform == "win32":
        return False  # what a process has open cannot be deleted there
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # another user's
    return True


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, in UTF-8."""
    with whole(path) as partial:
        partial.write_text(text, "utf-8")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one object a line, as they come, whole."""
    with whole(path) as partial, partial.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_text(path: Path) -> str:
    """A text file in UTF-8 as people have it: with a byte-order mark or without, with line ends of any system.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        It is text in another encoding, or none; the message says in which line.
    """
    return "".join(_lines(path))


def read_json_lines(path: Path, needed: Mapping[str, type | UnionType] | None = None) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, gzipped or not, read as `read_text` does; blank lines are passed over.

    Parameters
    ----------
    needed: entries that every object must have, and of which type; `str | None` may be missing.

    Raises
    ------
    OSError
        The file cannot be read.
    ValueError
        A line is no such object; the message says which, and what is wrong with it.
    """
    for number, line in enumerate(_lines(path), 1):
        if line.strip():
            yield _row(line, f"{path}, line {number}", needed or {})


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file that is written line by line: a last line that a kill cut off is left out."""
    if not path.exists():
        return
    content = path.read_bytes()
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        if line.strip(b"\0 \r"):  # a crash of the machine can leave zeros
            yield _row(line.decode("utf-8", "replace"), f"{path}, line {number}", {})


def _lines(path: Path) -> Iterator[str]:
    with (
        gzip.open(path, "rt", encoding="utf-8", errors="surrogateescape")
        if path.suffix == ".gz"
        else path.open(encoding="utf-8", errors="surrogateescape")
    ) as lines:
        try:
            for number, line in enumerate(lines, 1):
                if "\0" in line or line.startswith(("\udcff\udcfe", "\udcfe\udcff")):
                    raise ValueError(
                        f"{path}, line {number} is no text in UTF-8 but in UTF-16, or no text at all. Save it as UTF-8."
                    )
                try:
                    line.encode("utf-8")
                except UnicodeEncodeError as error:
                    raise ValueError(
                        f"{path}, line {number} is no text in UTF-8 from character {error.start + 1} on. Save it as "
                        "UTF-8."
                    ) from error
                yield line.removeprefix("\ufeff")  # files that were joined have the mark within, too
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or cut off: {error}") from error


def _row(line: str, where: str, needed: Mapping[str, type | UnionType]) -> dict[str, Any]:
    try:
        row = json.loads(line)
        if "\\ud" in line.lower():  # half of a pair of surrogates could never be written again
            json.dumps(row, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{where} holds half a character: {error.object[error.start : error.end]!r}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is not a JSON object: {line.strip()[:80]!r}")
    for name, kind in needed.items():
        if not isinstance(row.get(name), kind):
            known = str(getattr(kind, "__name__", kind))
            given = f"is {row[name]!r:.80}" if name in row else "is missing"
            raise ValueError(f'{where}: "{name}" must be {known}, and {given}.')
    return row
