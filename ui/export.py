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

from assistant.lanes.comparison import summary
from assistant.lanes.lane import as_record
from assistant.latency import Latency
from assistant.sound.audio import SAMPLE_RATE, Utterance
from ui.rounds import Answer, Round, measurements

TERMS = [term.name for term in fields(Latency)]
ABOUT = ["turn", "audio", "duration_s", "instruction", "interrupted", "lane", "began", "heard", "text"]
COLUMNS = [*ABOUT, *TERMS]


def write_export(kind: str, rounds: Sequence[Round], measured_on: str, folder: Path) -> Path:
    """Write the session as `kind` ("json", "csv" or "zip") into `folder` and return the file."""
    path = folder / f"earshot-session.{kind}"
    path.write_bytes(_WRITERS[kind](rounds, measured_on))
    return path


def as_object(rounds: Sequence[Round], measured_on: str) -> dict[str, Any]:
    """The session for programs: each turn as `launch.py ask --json` prints it, then the comparison as `bench` does."""
    found = measurements(rounds)
    return {
        "hardware": measured_on,
        "turns": [_turn(number, one) for number, one in enumerate(rounds, 1)],
        "comparison": summary(found) if found else None,
    }


def _turn(number: int, one: Round) -> dict[str, Any]:
    return {
        "turn": number,
        "audio": _audio_name(number) if one.said.clips else None,
        "duration_s": round(one.duration, 3),
        "instruction": one.text,
        "interrupted": one.interrupted,
        "order": list(one.order),
        "lanes": {name: _answer(name, answer) for name, answer in one.answers.items()},
    }


def _answer(lane: str, answer: Answer) -> dict[str, Any]:
    return {
        **as_record(lane, answer.text, answer.heard, answer.latency),
        "confidence": None if answer.confidence is None else [round(value, 3) for value in answer.confidence],
    }


def _audio_name(number: int) -> str:
    return f"audio/{number:03d}.flac"


def _json(rounds: Sequence[Round], measured_on: str) -> bytes:
    return json.dumps(as_object(rounds, measured_on), ensure_ascii=False, indent=1).encode("utf-8")


def _csv(rounds: Sequence[Round], measured_on: str) -> bytes:
    """One row for each turn and lane."""
    text = io.StringIO(newline="")
    rows = csv.DictWriter(text, COLUMNS)
    rows.writeheader()
    for number, one in enumerate(rounds, 1):
        for lane, answer in one.answers.items():
            about = {
                "turn": number,
                "audio": _audio_name(number) if one.said.clips else None,
                "duration_s": round(one.duration, 3),
                "instruction": _cell(one.text),
                "interrupted": one.interrupted,
                "lane": lane,
                "began": one.order[0] == lane,
                "heard": _cell(answer.heard),
                "text": _cell(answer.text),
            }
            rows.writerow(about | (answer.latency.as_dict() if answer.latency else {}))
    return text.getvalue().encode("utf-8-sig")  # the mark makes spreadsheets read Chinese


def _cell(text: str | None) -> str | None:
    """Words that a spreadsheet will not take for a formula."""
    return f"'{text}" if text and text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _zip(rounds: Sequence[Round], measured_on: str) -> bytes:
    """Recordings that were let go of since (`ui.rounds.with_round`) are missing, their turns are not."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("session.json", _json(rounds, measured_on))
        archive.writestr("session.csv", _csv(rounds, measured_on))
        for number, one in enumerate(rounds, 1):
            if one.said.clips:
                archive.writestr(_audio_name(number), as_file(one.said.clips, "FLAC"))
    return content.getvalue()


def as_file(clips: Sequence[Utterance], kind: str) -> bytes:
    """The clips of a turn, one after the other, as a "WAV" or "FLAC" file."""
    content = io.BytesIO()
    rate = clips[0].rate if len(clips) == 1 else SAMPLE_RATE
    samples = clips[0].samples if len(clips) == 1 else np.concatenate([clip.resampled() for clip in clips])
    soundfile.write(content, samples, rate, format=kind, subtype="PCM_16")
    return content.getvalue()


_WRITERS: dict[str, Callable[[Sequence[Round], str], bytes]] = {"json": _json, "csv": _csv, "zip": _zip}
