"""Pseudo-labels: Whisper's words for speech without a transcript; what is silent or doubtful is dropped and named."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from assistant.files import SAMPLES
from train.data.manifest import read_manifest
from train.labels import pseudo_label
from train.synthesis.engines import speak


def label(monkeypatch: pytest.MonkeyPatch, folder: Path, clips: list[tuple[Path, str | None]]) -> list[dict[str, Any]]:
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps({"audio": str(a), "text": t, "source": "s"}) + "\n" for a, t in clips))
    monkeypatch.setattr(sys, "argv", ["pseudo_label", str(manifest), "--out", str(folder / "out")])
    pseudo_label.main()
    return list(read_manifest(folder / "out" / "manifest.jsonl"))


@pytest.mark.weights
def test_speech_is_labelled_and_the_rest_is_dropped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    clips = [(SAMPLES / "capital.flac", None), (SAMPLES / "jfk.flac", "kept as it is")]
    clips += [(tmp_path / "silent.wav", None), (tmp_path / "noise.wav", None)]
    entries = label(monkeypatch, tmp_path, clips)
    assert [entry["source"] for entry in entries] == ["s-pseudo", "s"]
    assert "capital of france" in entries[0]["text"].lower()
    assert entries[1]["text"] == "kept as it is"
    said = capsys.readouterr().out
    assert "2 transcripts, 2 clips dropped" in said and "silent.wav" in said and "noise.wav" in said


@pytest.mark.weights
def test_what_follows_a_heading_and_a_pause_is_heard_and_a_clip_of_few_words_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heading, chapter = (
        speak(text, "hibari", {"name": "heart", "tempo": 1.0, "size": 1.0}, seed=1)
        for text in ("Chapter two.", "As he came out of the new house, three people walked past him on the sidewalk.")
    )
    pause = np.zeros(16_000, np.float32)
    soundfile.write(tmp_path / "chapter.wav", np.concatenate([heading, pause, chapter]), 16_000)
    soundfile.write(tmp_path / "heading.wav", np.concatenate([heading, *[pause] * 10]), 16_000)
    entries = label(monkeypatch, tmp_path, [(tmp_path / "chapter.wav", None), (tmp_path / "heading.wav", None)])
    assert [Path(entry["audio"]).name for entry in entries] == ["chapter.wav"]
    assert entries[0]["text"].startswith("Chapter 2") and entries[0]["text"].endswith("on the sidewalk.")
    assert "heading.wav: in 1" in capsys.readouterr().out
