"""Spoken replies: a neural English voice that comes in a wheel (hibari-tts) and needs no system package."""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np


class SpeechUnavailable(RuntimeError):
    """The reply cannot be spoken; the message says why."""


class Voice:
    """Text to speech, one sentence at a time; the model (8 MB) loads on first use."""

    sample_rate = 24_000  # Hz

    @cached_property
    def _engine(self) -> Any:
        try:
            from hibari import Hibari

            return Hibari(threads=1)
        except (ImportError, OSError, RuntimeError) as error:
            raise SpeechUnavailable(f"The voice cannot be loaded: {error}. Run python launch.py doctor.") from error

    def speak(self, text: str) -> Iterator[np.ndarray]:
        """Yield float32 samples [n] for each sentence of `text`, Markdown left out.

        Raises
        ------
        SpeechUnavailable
            The voice cannot be loaded, or the text is not English.
        """
        plain = speakable(text)
        letters = [character for character in plain if character.isalpha()]
        if letters and sum(not character.isascii() for character in letters) > 0.3 * len(letters):
            raise SpeechUnavailable("The packaged voice speaks English only; this reply is shown, not spoken.")
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", plain):
            if re.search(r"\w", sentence):
                yield self._engine(sentence)


def speakable(text: str) -> str:
    """The words of a reply without Markdown: code blocks, emphasis, headings, list marks and links are not read out."""
    text = re.sub(r"```.*?(```|$)", " ", text, flags=re.DOTALL)
    text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"^\s*(#+|[-*+]|\d+\.)\s+", "", text, flags=re.MULTILINE)
    return re.sub(r"[*_`~|]+", "", text).strip()
