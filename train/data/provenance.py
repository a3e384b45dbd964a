"""What a feature cache was made from, so that only what is still true of it is trained on, and nothing is made twice.

Every line of an index says which recording (by its content), which copy, which seed, which encoder and which
augmentation its features come from. Given a manifest, lines that no longer belong to it are taken out, labels that
changed are corrected, and what is missing is encoded; arrays never change.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm
from whisper.model import Whisper

from assistant.files import read_json_lines, write_json_lines
from train.data import augmentation

Row = dict[str, Any]
IDENTITY = ("clip", "again", "copy", "seed", "encoder", "augmentation")  # what decides the features of a line
LABELS = ("text", "source", "audio")  # what may change without them
MISSING = "missing"


def wanted_rows(entries: Sequence[Row], model: Whisper, copies: int, seed: int, clean_share: float) -> list[Row]:
    """The lines that the index of a manifest's entries should have, copy by copy, but for where the features lie."""
    with ThreadPoolExecutor() as pool:
        digests = pool.map(_file_digest, [entry["audio"] for entry in entries])
        clips = list(tqdm(digests, total=len(entries), desc="Looking at clips", unit=" clips", leave=False))
    encoder, settings = _encoder_digest(model), _augmentation_digest(clean_share)
    seen: Counter[str] = Counter()
    rows = []
    for entry, clip in zip(entries, clips, strict=True):
        about = {"text": entry["text"] or "", "source": entry["source"], "audio": entry["audio"]}
        # A recording that is there several times is augmented differently each time.
        rows.append({**about, "clip": clip, "again": seen[clip], "seed": seed, "encoder": encoder})
        seen[clip] += 1
    return [{**row, "copy": copy, "augmentation": settings} for copy in range(copies) for row in rows]


def identity(row: Row) -> tuple[Any, ...]:
    """What a line's features were made from; two lines of the same are the same."""
    return tuple(row.get(name) for name in IDENTITY)


def clear_out(folder: Path, wanted: Sequence[Row]) -> tuple[dict[tuple[Any, ...], Row], Counter[str]]:
    """Take out of a cache what is not wanted, and correct the labels of the rest.

    Returns the lines that stay, by their identity, and what was done, how often and why.
    """
    by_identity = {identity(row): row for row in wanted}
    by_audio: dict[str, Row] = {}
    for row in reversed(wanted):
        by_audio[row["audio"]] = row
    kept: dict[tuple[Any, ...], Row] = {}
    done: Counter[str] = Counter()
    for index in sorted(folder.glob("*.jsonl")):
        try:
            rows = list(read_json_lines(index))
            check_array(index.with_suffix(".npy"), rows)
        except ValueError:
            done["files were damaged and are made anew"] += 1
            index.unlink()
            continue
        staying = []
        for row in rows:
            goal = by_identity.get(identity(row))
            if goal is None or identity(row) in kept:
                done[_why_not(row, by_audio)] += 1
                continue
            done["clips are labelled anew: their text changed"] += row["text"] != goal["text"]
            staying.append({**row, **{name: goal[name] for name in LABELS}})
            kept[identity(row)] = staying[-1]
        if not staying:
            index.unlink()
        elif staying != rows:
            write_json_lines(index, staying)
    for array in folder.glob("*.npy"):
        if not array.with_suffix(".jsonl").exists():  # the index is written last: without it there is no array
            array.unlink()
    return kept, +done


def _why_not(row: Row, by_audio: dict[str, Row]) -> str:
    if "clip" not in row:
        return "clips are made anew: nothing says what they were made from"
    goal = by_audio.get(row.get("audio", ""))
    if goal is None:
        return "clips are left out: the manifest has them no longer"
    reasons = {
        "clip": "the recording changed",
        "encoder": "another Whisper was asked for",
        "seed": f"another seed was asked for ({row['seed']} before)",
        "augmentation": "the augmentation changed",
    }
    changed = [reason for name, reason in reasons.items() if row.get(name) != goal[name]]
    return f"clips are made anew: {', '.join(changed)}" if changed else "clips are left out: fewer copies are wanted"


def check_array(array: Path, rows: Sequence[Row]) -> np.ndarray:
    """The features of a shard [frames, width], memory-mapped. Raises ValueError when they are not all there."""
    try:
        features: np.ndarray = np.load(array, mmap_mode="r", allow_pickle=False)
        needed = max((row["start"] + row["frames"] for row in rows if "frames" in row), default=0)
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise ValueError(f"{array} is damaged: {error}") from error
    if features.ndim != 2 or len(features) < needed:
        raise ValueError(f"{array} is damaged: {needed} rows should be there, not {len(features)}")
    return features


def _file_digest(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:24]
    except OSError:
        return MISSING


def _encoder_digest(model: Whisper) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.encoder.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


def _augmentation_digest(clean_share: float) -> str:
    """Of the code itself: there is nothing else that says how recordings are augmented."""
    code = Path(augmentation.__file__).read_text("utf-8")
    return hashlib.sha256(f"{clean_share}\n{code}".encode()).hexdigest()[:12]
