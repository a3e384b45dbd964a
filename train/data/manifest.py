"""Manifests: JSON lines of {"audio", "text", "speaker", "duration", "source"}, paths relative to the file.

Only `audio` must be there. Also what must never be trained on: paths that look held out, and one sentence in a hundred
of all others.
"""

import os
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from assistant.files import read_json_lines, write_json_lines
from train.data.spoken_form import spoken_form

HELD_OUT = re.compile(r"^dev$|_(test|val|dev)(\.|$)|^mmlu_subset\b")
ENTRY = {"audio": str, "text": str | None, "speaker": str | None, "duration": int | float | None, "source": str | None}
WITHOUT_SPEECH = "no-speech"  # source of recordings in which nobody speaks; their text is empty


def read_manifest(path: Path) -> Iterator[dict[str, Any]]:
    """Entries of a manifest, or of a folder's `manifest.jsonl`, with `audio` made an absolute path string.

    What an entry does not say is None; its `source` is then the name of the folder. Raises as `read_json_lines` does.
    """
    path = path / "manifest.jsonl" if path.is_dir() else path
    for entry in read_json_lines(path, ENTRY):
        about = {"text": None, "speaker": None, "duration": None, **entry}
        about["source"] = entry.get("source") or path.resolve().parent.name
        audio = path.parent / entry["audio"]
        if "\\" in entry["audio"] and not audio.exists():  # the path of another system
            audio = path.parent / entry["audio"].replace("\\", "/")
        yield {**about, "audio": str(audio.resolve())}


def write_manifest(path: Path, entries: Iterable[dict[str, Any]]) -> None:
    """Write entries, `audio` relative to the manifest."""
    here = path.parent.resolve()
    write_json_lines(
        path,
        (
            {**entry, "audio": Path(os.path.relpath(Path(entry["audio"]).resolve(), here)).as_posix()}
            for entry in entries
        ),
    )


def refuse_held_out(paths: Iterable[Path]) -> None:
    """Raise ValueError when a path belongs to the development or test data, which training must never see."""
    for path in paths:
        if any(HELD_OUT.search(part) for part in path.resolve().parts[-5:]):
            raise ValueError(f"{path} is held out for evaluation; do not train on it.")


def held_out(text: str) -> bool:
    """One sentence in a hundred is kept for validation, in whatever voice and copy it appears; silence never is."""
    spoken = spoken_form(text)
    return bool(spoken) and zlib.crc32(spoken.encode()) % 100 == 0
