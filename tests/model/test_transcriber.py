"""What the cascade writes down is what was said: nothing in silence, no phrase for ever; the other lane beside it."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from whisper.decoding import DecodingResult
from whisper.model import Whisper

from assistant.files import CHECKPOINT, SAMPLES
from assistant.latency import StageClock
from assistant.model import transcriber as module
from assistant.model.speech_encoder import load_whisper
from assistant.model.speech_lm import load_reader
from assistant.model.transcriber import PACE, Transcriber
from assistant.sound.audio import SAMPLE_RATE, load_utterance

Read = Callable[[np.ndarray], str]


def clip(name: str) -> np.ndarray:
    return load_utterance(SAMPLES / f"{name}.flac").resampled()


def noise(seconds: float, level: float) -> np.ndarray:
    """White noise, `level` in dB below full scale."""
    return np.random.default_rng(0).normal(0, 10 ** (level / 20), int(seconds * SAMPLE_RATE)).astype(np.float32)


def tone(*frequencies: float) -> np.ndarray:
    time = np.arange(4 * SAMPLE_RATE) / SAMPLE_RATE
    return (0.1 * sum(np.sin(2 * np.pi * frequency * time) for frequency in frequencies)).astype(np.float32)


@pytest.fixture(scope="module")
def whisper() -> Whisper:
    return load_whisper("whisper-base")


@pytest.fixture(scope="module", params=["cascade", "end-to-end"])
def read(request: pytest.FixtureRequest, whisper: Whisper) -> Read:
    """What a lane hears in samples."""
    if request.param == "end-to-end":
        return load_reader(CHECKPOINT, whisper)
    return lambda samples: Transcriber(whisper).transcribe(samples, StageClock(torch.device("cpu")))


def words(text: str) -> list[str]:
    return re.findall(r"[a-z']+", text.lower())


@pytest.mark.weights
@pytest.mark.parametrize("silence", [np.zeros(40 * SAMPLE_RATE, np.float32), noise(40, -65.0)], ids=["digital", "room"])
def test_silence_before_the_question_adds_no_words(read: Read, silence: np.ndarray) -> None:
    assert words(read(np.concatenate([silence, clip("capital")]))) == words("what is the capital of france")


@pytest.mark.weights
@pytest.mark.parametrize(
    "sound",
    [np.zeros(3 * SAMPLE_RATE, np.float32), noise(4, -40), noise(4, -12), tone(50), tone(350, 440)],
    ids=["silence", "hiss", "roar", "hum", "dial"],
)
def test_nobody_speaks_and_nothing_is_read(read: Read, sound: np.ndarray) -> None:
    assert read(sound) == ""


@pytest.mark.weights
def test_a_quiet_microphone_is_heard_as_far_as_it_goes(read: Read) -> None:
    speech = clip("jfk")
    heard = words(read(0.01 * speech / np.abs(speech).max() + noise(len(speech) / SAMPLE_RATE, -50)))
    assert len(heard) < 40
    assert max((heard.count(word) for word in set(heard)), default=0) < 6


@pytest.mark.weights
@pytest.mark.parametrize("begin", [9_000, 21_000])
def test_what_is_repeated_is_no_longer_than_it_was_said(read: Read, begin: int) -> None:
    again = np.tile(clip("capital")[begin : begin + 8_000], 16)
    assert 0 < len(words(read(again))) <= PACE * 8 + 1


@pytest.mark.weights
def test_a_sentence_that_was_said_five_times_stays(read: Read) -> None:
    assert words(read(np.tile(clip("good_day"), 5))).count("today") == 5


def test_a_loop_is_tried_once_more_and_then_cut(tiny_whisper: Whisper, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first try never ends; the second is believed when it does, and cut to what there was time for when not."""
    loop, fine = "so it goes. " * 60, "So it goes, as they say."
    tried: list[float] = []

    def result(text: str, tokens: int) -> DecodingResult:
        ratio = 20.0 if tokens > 100 else 1.0
        return DecodingResult(None, "en", None, [0] * tokens, text, -0.1, 0.1, 0.0, ratio)  # type: ignore[arg-type]

    def decode(_: Whisper, __: torch.Tensor, options: module.DecodingOptions) -> list[DecodingResult]:
        tried.append(options.temperature)
        return [result(loop, 224) if len(tried) < looping else result(fine, 8)]

    monkeypatch.setattr(module, "decode", decode)
    transcriber, clock = Transcriber(tiny_whisper), StageClock(torch.device("cpu"))
    looping = 2
    assert transcriber.transcribe(clip("good_day"), clock) == fine
    assert tried == [0.0, module.WARMER]
    tried, looping = [], 9
    assert len(words(transcriber.transcribe(clip("good_day"), clock))) <= PACE * 2 + 1
    assert len(tried) == 2
