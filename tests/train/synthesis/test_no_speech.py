"""Sounds without words: the same for a seed, audible but for silence, and taken into a feature cache without a text."""

import sys
from pathlib import Path

import numpy as np
import pytest

from assistant.sound.audio import SAMPLE_RATE, load_utterance
from train.data.manifest import WITHOUT_SPEECH, read_manifest
from train.synthesis import no_speech
from train.synthesis.no_speech import KINDS, sounds


def test_sounds_follow_from_the_seed() -> None:
    first, again, other = ([samples for _, samples in sounds(10, seed)] for seed in (1, 1, 2))
    assert all(np.array_equal(one, two) for one, two in zip(first, again, strict=True))
    assert not any(len(one) == len(two) and np.array_equal(one, two) for one, two in zip(first, other, strict=True))


def test_every_kind_is_a_sound_of_its_own() -> None:
    drawn = list(sounds(25, 1))
    assert [kind for kind, _ in drawn[:5]] == list(KINDS)
    for kind, samples in drawn:
        assert samples.dtype == np.float32 and 1 <= len(samples) / SAMPLE_RATE <= 9
        assert np.isfinite(samples).all()
        peak = np.abs(samples).max()
        assert peak < 0.02 if kind == "silence" else 0.015 < peak <= 0.91, kind
    hum = next(samples for kind, samples in drawn if kind == "hum")
    spectrum, frequency = np.abs(np.fft.rfft(hum)), np.fft.rfftfreq(len(hum), 1 / SAMPLE_RATE)
    assert spectrum[frequency < 450].max() > 20 * spectrum[frequency > 450].max()
    clicks = next(samples for kind, samples in drawn if kind == "clicks")
    assert np.abs(clicks).max() > 10 * np.median(np.abs(clicks))


def test_the_command_writes_clips_without_words(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["no_speech", "--out", str(tmp_path / "out"), "--count", "6"])
    no_speech.main()
    entries = list(read_manifest(tmp_path / "out" / "manifest.jsonl"))
    assert len(entries) == 6
    for entry in entries:
        assert (entry["text"], entry["source"]) == ("", WITHOUT_SPEECH)
        assert load_utterance(entry["audio"]).duration == pytest.approx(entry["duration"], abs=0.01)
