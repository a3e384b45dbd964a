"""A visitor's session as a file to take away: JSON, CSV, or a zip of both with the recordings."""

import csv
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from assistant.audio import SAMPLE_RATE, Utterance
from assistant.benchmark import summary
from assistant.latency import Latency
from ui.session import Answer, Turn, measurements

HEARD = {"end_to_end": "reading", "cascade": "transcript"}  # as `launch.py ask --json` calls it
TERMS = [term.name for term in fields(Latency)]
ABOUT = ["turn", "audio", "duration_s", "instruction", "interrupted", "lane", "began", "together", "heard", "text"]
COLUMNS = [*ABOUT, *TERMS]


def write_export(kind: str, turns: Sequence[Turn], measured_on: str, folder: Path) -> Path:
    """Write the session as `kind` ("json", "csv" or "zip") into `folder` and return the file."""
    path = folder / f"earshot-session.{kind}"
    path.write_bytes(_WRITERS[kind](turns, measured_on))
    return path


def as_object(turns: Sequence[Turn], measured_on: str) -> dict[str, Any]:
    """The session for programs: each turn as `launch.py ask --json` prints it, then the comparison as `bench` does."""
    found = measurements(turns)
    return {
        "hardware": measured_on,
        "turns": [_turn(number, turn) for number, turn in enumerate(turns, 1)],
        "comparison": summary(found) if found else None,
    }


def _turn(number: int, turn: Turn) -> dict[str, Any]:
    return {
        "turn": number,
        "audio": _audio_name(number) if turn.said.clips else None,
        "duration_s": round(turn.duration, 3),
        "instruction": turn.text,
        "interrupted": turn.interrupted,
        "order": list(turn.order),
        "together": turn.together,
        "lanes": {name: _answer(name, answer) for name, answer in turn.answers.items()},
    }


def _answer(lane: str, answer: Answer) -> dict[str, Any]:
    return {
        "text": answer.text,
        HEARD[lane]: answer.heard,
        "confidence": None if answer.confidence is None else [round(value, 3) for value in answer.confidence],
        "latency": answer.latency and answer.latency.as_dict(),
    }


def _audio_name(number: int) -> str:
    return f"audio/{number:03d}.flac"


def _json(turns: Sequence[Turn], measured_on: str) -> bytes:
    return json.dumps(as_object(turns, measured_on), ensure_ascii=False, indent=1).encode("utf-8")


def _csv(turns: Sequence[Turn], measured_on: str) -> bytes:
    """One row for each turn and lane."""
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, COLUMNS)
    rows.writeheader()
    for number, turn in enumerate(turns, 1):
        for lane, answer in turn.answers.items():
            about = {
                "turn": number,
                "audio": _audio_name(number) if turn.said.clips else None,
                "duration_s": round(turn.duration, 3),
                "instruction": _cell(turn.text),
                "interrupted": turn.interrupted,
                "lane": lane,
                "began": turn.order[0] == lane,
                "together": turn.together,
                "heard": _cell(answer.heard),
                "text": _cell(answer.text),
            }
            rows.writerow(about | (answer.latency.as_dict() if answer.latency else {}))
    return text.getvalue().encode("utf-8-sig")  # the mark makes spreadsheets read Chinese


def _cell(text: str | None) -> str | None:
    """Words that a spreadsheet will not take for a formula."""
    return f"'{text}" if text and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _zip(turns: Sequence[Turn], measured_on: str) -> bytes:
    """Recordings that were let go of since (`ui.session.with_turn`) are missing, their turns are not."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("session.json", _json(turns, measured_on))
        archive.writestr("session.csv", _csv(turns, measured_on))
        for number, turn in enumerate(turns, 1):
            if turn.said.clips:
                archive.writestr(_audio_name(number), as_file(turn.said.clips, "FLAC"))
    return content.getvalue()


def as_file(clips: Sequence[Utterance], kind: str) -> bytes:
    """The clips of a turn, one after the other, as a "WAV" or "FLAC" file."""
    content = io.BytesIO()
    rate = clips[0].rate if len(clips) == 1 else SAMPLE_RATE
    samples = clips[0].samples if len(clips) == 1 else np.concatenate([clip.resampled() for clip in clips])
    soundfile.write(content, samples, rate, format=kind, subtype="PCM_16")
    return content.getvalue()


_WRITERS: dict[str, Callable[[Sequence[Turn], str], bytes]] = {"json": _json, "csv": _csv, "zip": _zip}
