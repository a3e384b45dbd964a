"""A game's package becomes clips and a script, and the clips find their lines: real speech, read by what ships."""

import io
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from assistant.files import SAMPLES
from assistant.sound.audio import load_utterance
from train.data import adventure_game
from train.data.manifest import read_manifest
from train.labels import script

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")


def mp3(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="MP3")
    return file.getvalue()


def row(*texts: str) -> bytes:
    """Strings of a dialogue as the game keeps them."""
    return b"".join(bytes([len(text)]) + text.encode() for text in texts) + b"\0"


def resource_file(resources: dict[str, bytes]) -> bytes:
    table = struct.pack(">4s9sH", b"QTBL", b"CEM10\0\0\0\x01", len(resources))
    offset = len(table) + 21 * len(resources)
    for name, data in resources.items():
        table += struct.pack(">12sBII", name.encode(), 1, offset, len(data))
        offset += len(data)
    return table + b"".join(resources.values())


GAME = {
    "020001P1.SB": mp3(load_utterance(SAMPLES / "capital.flac").resampled()),
    "020001P2.SB": mp3(load_utterance(SAMPLES / "good_day.flac").resampled()),
    "JOE00001.SB": b"no sound",
    "AND1.DOG": b"AmBk\0\x0f"
    + b"\0\x07"  # a number that could be a length, as in the game
    + row("What is the capital of France?*15Somebody has  stolen my canoe.*04*03", "*FLNobody says this.*0"),
    "C1A.CUT": b"\0\x01\0\x02" + row("Have you seen a parrot?*03"),
    "QUEEN2.JAS": b"It looks nice*03\r\nWhat is the capital of France?*24\r\n*12\r\n",
    "A.PCX": row("no line"),
}


def package(folder: Path, data: bytes) -> Path:
    file = folder / "root" / adventure_game.RESOURCES
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    control = folder / "root" / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text("Package: game\nVersion: 1\nArchitecture: all\nMaintainer: us <us@localhost>\nDescription: x\n")
    subprocess.run(["dpkg-deb", "--build", str(folder / "root"), str(folder / "game.deb")], check=True)
    return folder / "game.deb"


def run(monkeypatch: pytest.MonkeyPatch, module: object, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
    module.main()  # type: ignore[attr-defined]


@pytest.mark.weights
def test_clips_find_their_lines_and_what_is_like_no_line_is_dropped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run(monkeypatch, adventure_game, package(tmp_path, resource_file(GAME)), "--out", tmp_path / "game")
    assert "2 clips" in (said := capsys.readouterr().out) and "1 others unusable" in said
    lines = [json.loads(line)["text"] for line in (tmp_path / "game" / "script.jsonl").read_text().splitlines()]
    assert lines == [
        "What is the capital of France?",
        "Somebody has stolen my canoe.",
        "Nobody says this.",
        "Have you seen a parrot?",
        "It looks nice",
    ]
    broken = {"audio": "JOE00001.mp3", "text": None, "speaker": None, "duration": 1.0, "source": "amazon-queen"}
    with (tmp_path / "game" / "manifest.jsonl").open("a") as manifest:
        manifest.write(json.dumps(broken) + "\n")
    arguments = (tmp_path / "game" / "manifest.jsonl", tmp_path / "game" / "script.jsonl", "--out", tmp_path / "said")
    run(monkeypatch, script, *arguments, "--processes", 1)
    assert "1 recordings say a line of the script; of 2 it is not certain" in capsys.readouterr().out
    (entry,) = read_manifest(tmp_path / "said" / "manifest.jsonl")
    assert entry["text"] == "What is the capital of France?"
    assert entry["audio"] == str(tmp_path / "game" / "020001P1.mp3") and 1 < entry["duration"] < 5


@pytest.mark.parametrize(
    ("reading", "line"),
    [
        ("but they are swedish nature films that what they are", 0),
        ("they were swedish nature fields what they are", 0),
        ("what they are boring films", 1),
        ("yeah", None),  # a line, but one that too much is like
        ("hundred gorilla", None),
        ("", None),
    ],
)
def test_the_line_that_is_most_like_the_reading(reading: str, line: int | None) -> None:
    lines = ["they're swedish nature films that's what they are", "they're boring films", "yeah"]
    assert script.closest_line(reading, lines) == line


def test_a_checkpoint_that_is_not_there_is_named_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("manifest.jsonl", "script.jsonl"):
        (tmp_path / name).write_text("")
    arguments = (tmp_path / "manifest.jsonl", tmp_path / "script.jsonl", "--out", tmp_path / "said")
    with pytest.raises(SystemExit, match="nowhere"):
        run(monkeypatch, script, *arguments, "--checkpoint", tmp_path / "nowhere")


NO_DESCRIPTIONS = resource_file({name: data for name, data in GAME.items() if name != adventure_game.DESCRIPTIONS})


@pytest.mark.parametrize("data", [b"", b"RIFF" + bytes(100), resource_file(GAME)[:60], NO_DESCRIPTIONS])
def test_another_file_is_refused_with_the_package_that_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes
) -> None:
    with pytest.raises(SystemExit, match="which package is needed"):
        run(monkeypatch, adventure_game, package(tmp_path, data), "--out", tmp_path / "game")
