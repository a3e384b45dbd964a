"""The packaged voice says what it is given, and never reads Markdown aloud."""

import numpy as np
import pytest
import soxr
import torch

from assistant.latency import StageClock
from assistant.model.speech_encoder import load_whisper
from assistant.model.transcriber import Transcriber
from assistant.voice.tts import SpeechUnavailable, Voice, speakable


@pytest.mark.weights
def test_whisper_understands_the_voice() -> None:
    pieces = list(Voice().speak("The capital of France is Paris. It lies on the river Seine."))
    assert len(pieces) == 2
    samples = soxr.resample(np.concatenate(pieces), Voice.sample_rate, 16_000)
    heard = Transcriber(load_whisper("whisper-base")).transcribe(samples, StageClock(torch.device("cpu"))).lower()
    assert "capital of france is paris" in heard


def test_markdown_is_not_read_out() -> None:
    text = (
        "## Answer\n\n1. **Paris** is *nice*, see [the map](http://x.y/z).\n- `code`\n```python\nprint(1)\n```\nDone."
    )
    assert speakable(text).split() == ["Answer", "Paris", "is", "nice,", "see", "the", "map.", "code", "Done."]


def test_nothing_to_say_is_silence() -> None:
    assert list(Voice().speak("... ** **")) == []


def test_another_language_is_refused_in_words() -> None:
    with pytest.raises(SpeechUnavailable, match="English only"):
        list(Voice().speak("今天是一个好日子。"))
