"""Transcribed speech from wherever it lies: manifests, folders, Hugging Face data sets."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from assistant.files import read_text, whole
from assistant.limits import MAX_DURATION
from assistant.process import way_out
from assistant.sound.audio import AudioError, load_utterance
from train.data.manifest import read_manifest, refuse_held_out

# Endings of recordings, in any case: what libsndfile or PyAV reads, videos for their sound.
AUDIO = frozenset(
    f".{ending}"
    for endings in (
        ("wav", "wave", "flac", "mp3", "mp2", "mpga", "ogg", "oga", "opus", "spx", "m4a", "m4b", "aac", "webm", "wma"),
        ("aif", "aifc", "aiff", "au", "snd", "caf", "w64", "rf64", "amr", "ac3", "3gp", "mp4", "m4v", "mov", "mkv"),
        ("mka", "avi", "ogv"),
    )
    for ending in endings
)
TEXT_COLUMNS = ("text", "sentence", "transcription", "transcript", "normalized_text")
HELD_OUT_SPLIT = re.compile(r"\b(test|dev|val|validation)", re.IGNORECASE)


class UtteranceError(ValueError):
    """A source of utterances cannot be read; the message says which and what to do."""


def read_utterances(source: str, store: Path) -> Iterator[dict[str, Any]]:
    """Entries as of a manifest, `audio` an absolute path; `text` is None without a transcript or readable audio.

    Parameters
    ----------
    source: a manifest; a folder of manifests (`*.jsonl`) or of audio files with a `.txt` beside each; a folder that
        `datasets` saved; or the name of a data set on the hub: `name`, `name:configuration`, each with `@split`.
    store: where the audio of a `datasets` source is written, once.

    Raises
    ------
    UtteranceError
        There is nothing of that name.
    ValueError
        The data is held out for evaluation, or a line of a manifest is broken.
    """
    path = Path(source)
    if not path.exists():
        yield from _data_set(source, store)
        return
    refuse_held_out([path])
    if path.is_file():
        yield from read_manifest(path)
    elif (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists():
        yield from _data_set(source, store)
    elif manifests := sorted(path.rglob("*.jsonl")):
        refuse_held_out(manifests)
        for manifest in manifests:
            yield from read_manifest(manifest)
    else:
        yield from _folder(path)


def _folder(path: Path) -> Iterator[dict[str, Any]]:
    files = [file for file in sorted(path.rglob("*")) if not file.name.startswith(".") and file.is_file()]
    texts = {file.with_suffix(""): file for file in files if file.suffix.lower() == ".txt"}
    recordings = [file for file in files if file.suffix.lower() in AUDIO]
    if not recordings:
        raise UtteranceError(f"{path} holds neither manifests (*.jsonl) nor audio ({', '.join(sorted(AUDIO))}).")
    refuse_held_out(recordings)
    for file in recordings:
        beside, duration = texts.get(file.with_suffix("")), _duration(file)
        yield {
            "audio": str(file.resolve()),
            "text": " ".join(read_text(beside).split()) if duration and beside else None,
            "speaker": file.parent.name,
            "duration": duration,
            "source": path.resolve().name,
        }


def _data_set(source: str, store: Path) -> Iterator[dict[str, Any]]:
    try:
        import datasets
    except ImportError as error:
        raise UtteranceError(
            f"{source} is no file or folder. To read it as a Hugging Face data set: pip install datasets"
        ) from error
    rest, _, split = source.partition("@")
    name, _, configuration = rest.partition(":")
    split = split or "train"
    if HELD_OUT_SPLIT.search(split):
        raise ValueError(f"{source} is held out for evaluation; do not train on it.")
    try:
        if Path(name).exists():
            loaded = datasets.load_from_disk(name)
            rows = loaded[split] if isinstance(loaded, datasets.DatasetDict) else loaded
        else:
            with way_out():
                rows = datasets.load_dataset(name, configuration or None, split=split)
    except (OSError, ValueError, KeyError) as error:
        first = str(error).splitlines()[0]
        raise UtteranceError(f"{source} is no file or folder, and `datasets` cannot load it: {first}") from error
    text = next((column for column in TEXT_COLUMNS if column in rows.column_names), None)
    if text is None or "audio" not in rows.column_names:
        raise UtteranceError(f"{source} needs the columns audio and one of {', '.join(TEXT_COLUMNS)}.")
    label, folder = Path(name).name, store / re.sub(r"[^\w.-]+", "_", f"{Path(name).name}:{configuration}@{split}")
    for index, row in enumerate(rows.cast_column("audio", datasets.Audio(decode=False))):
        audio = _store(row["audio"], folder / f"{index:07d}")
        duration = _duration(audio)
        yield {
            "audio": str(audio),
            "text": row[text] if duration else None,
            "speaker": str(row.get("speaker_id") or row.get("speaker") or ""),
            "duration": duration,
            "source": label,
        }


def _store(audio: dict[str, Any], path: Path) -> Path:
    """The file of one clip: where it lies already, or its bytes written under `path`."""
    if not audio["bytes"]:
        return Path(audio["path"]).resolve()
    path = path.with_suffix(Path(audio["path"] or ".wav").suffix).resolve()
    if not path.exists() or path.read_bytes() != audio["bytes"]:  # of another version of the data set
        with whole(path) as partial:
            partial.write_bytes(audio["bytes"])
    return path


def _duration(path: Path) -> float | None:
    """Seconds; None for what cannot be listened to. A header is believed when what it says can be."""
    try:
        duration = float(soundfile.info(path).duration)
    except (soundfile.LibsndfileError, OSError):
        duration = 0.0
    try:
        return round(duration if 0 < duration <= MAX_DURATION else load_utterance(path).duration, 3)
    except AudioError:
        return None
