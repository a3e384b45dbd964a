"""The encoder on the real length: openai-whisper's own numbers, without its padding."""

import numpy as np
import pytest
import torch
from whisper.model import Whisper

from assistant.files import SAMPLES
from assistant.model.speech_encoder import (
    SEGMENT,
    encode,
    load_whisper,
    speech_mels,
    split_segments,
    whisper_from_folder,
)
from assistant.model.weights import WeightsError
from assistant.sound.audio import load_utterance


def test_thirty_seconds_give_openai_whispers_output(tiny_whisper: Whisper) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, SEGMENT).astype(np.float32)
    (mel,) = speech_mels(samples, 80)
    assert torch.allclose(encode(tiny_whisper, samples), tiny_whisper.embed_audio(mel[None])[0], atol=1e-4)


@pytest.mark.parametrize("seconds", [0.3, 1.0, 7.77, 30.0, 61.0])
def test_fifty_frames_a_second_whatever_the_length(tiny_whisper: Whisper, seconds: float) -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * 16_000)).astype(np.float32)
    features = encode(tiny_whisper, samples)
    assert features.shape[1] == 64
    assert abs(len(features) - 50 * seconds) <= 3


def test_long_recordings_are_cut_in_pauses_and_nothing_is_lost() -> None:
    samples = np.random.default_rng(0).normal(0, 0.1, 70 * 16_000).astype(np.float32)
    pause = slice(27 * 16_000, 27 * 16_000 + 1600)
    samples[pause] = 0
    pieces = split_segments(samples)
    assert np.array_equal(np.concatenate(pieces), samples)
    assert all(len(piece) <= SEGMENT for piece in pieces)
    assert pause.start <= len(pieces[0]) <= pause.stop


@pytest.mark.weights
def test_real_features_do_not_depend_on_the_run() -> None:
    whisper = load_whisper("whisper-base")
    samples = load_utterance(SAMPLES / "lobster.flac").resampled()
    assert torch.equal(encode(whisper, samples), encode(whisper, samples))


def test_a_folder_that_holds_no_whisper_is_named(tiny_llm_folder) -> None:
    with pytest.raises(WeightsError, match="does not hold a Whisper"):
        whisper_from_folder(tiny_llm_folder)
