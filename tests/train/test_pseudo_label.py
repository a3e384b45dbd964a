"""Pseudo-labels: Whisper's words for speech without a transcript; what is silent or doubtful is dropped and named."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from tests.conftest import SAMPLES
from train import pseudo_label
from train.manifest import read_manifest


def test_speech_is_labelled_and_the_rest_is_dropped_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(0).normal(0, 0.1, 32_000), 16_000)
    clips = [(SAMPLES / "capital.flac", None), (SAMPLES / "jfk.flac", "kept as it is")]
    clips += [(tmp_path / "silent.wav", None), (tmp_path / "noise.wav", None)]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("".join(json.dumps({"audio": str(a), "text": t, "source": "s"}) + "\n" for a, t in clips))
    monkeypatch.setattr(sys, "argv", ["pseudo_label", str(manifest), "--out", str(tmp_path / "out")])
    pseudo_label.main()
    entries = list(read_manifest(tmp_path / "out" / "manifest.jsonl"))
    assert [entry["source"] for entry in entries] == ["s-pseudo", "s"]
    assert "capital of france" in entries[0]["text"].lower()
    assert entries[1]["text"] == "kept as it is"
    said = capsys.readouterr().out
    assert "2 transcripts, 2 clips dropped" in said and "silent.wav" in said and "noise.wav" in said
