"""Voices: a neural English one that comes in a wheel (hibari-tts) and needs no system package, and the system's own."""

import json
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import soundfile
import soxr

from assistant.files import ROOT
from assistant.limits import SILENCE_PEAK

VOICES = ("natural", "system", "silent")
LEAD, TAIL = 0.02, 0.15  # seconds of silence left around a sentence; the packaged voice brings 0.3 and 0.4
PATIENCE = 30.0  # seconds the system voice may take for a sentence


class SpeechUnavailable(RuntimeError):
    """The reply cannot be spoken; the message says why."""


class Voice:
    """Text to speech, one sentence at a time; the model (8 MB) loads on first use. `speed` 1 is its own pace."""

    sample_rate = 24_000  # Hz
    english_only = True

    def __init__(self, speed: float = 1.0) -> None:
        if not 0.5 <= speed <= 2.0:
            raise ValueError(f"A speed of {speed:g} cannot be understood. Use 0.5 (slow) to 2 (fast).")
        self.speed = speed

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
            The voice cannot be loaded, or does not speak this language.
        """
        plain = speakable(text)
        if self.english_only and foreign(plain):
            raise SpeechUnavailable("The packaged voice speaks English only; this reply is shown, not spoken.")
        for sentence in re.split(r"(?<=[.!?])\s+|\n+", plain):
            if re.search(r"\w", sentence):
                yield trimmed(self._say(sentence), self.sample_rate)

    def warm_up(self) -> None:
        """Load the voice and say a word to nobody, so that the first reply does not wait for it."""
        self._say("Hello.")

    def _say(self, sentence: str) -> np.ndarray:
        return np.asarray(self._engine(sentence, speed=self.speed))


class SystemVoice(Voice):
    """The operating system's voice, through pyttsx3 in a process of its own: its engines do not bear threads."""

    english_only = False

    def __init__(self, speed: float = 1.0) -> None:
        super().__init__(speed)
        self._process: subprocess.Popen[str] | None = None
        self._one_at_a_time = threading.Lock()

    def _say(self, sentence: str) -> np.ndarray:
        with self._one_at_a_time, tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "sentence.wav"
            self._ask({"text": sentence, "path": str(path), "speed": self.speed, "chinese": foreign(sentence)})
            try:
                samples, rate = soundfile.read(path, dtype="float32")
            except (soundfile.LibsndfileError, OSError) as error:
                raise SpeechUnavailable("The system voice said nothing. Use --voice natural.") from error
        return soxr.resample(samples, rate, self.sample_rate)

    def _ask(self, request: dict[str, Any]) -> None:
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "assistant.voice.system_voice"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
                cwd=ROOT,
            )
        give_up = threading.Timer(PATIENCE, self._process.kill)
        give_up.start()
        try:
            to_voice, from_voice = self._pipes()
            to_voice.write(json.dumps(request) + "\n")
            to_voice.flush()
            answer = from_voice.readline()
        except OSError:
            answer = ""
        finally:
            give_up.cancel()
        problem = json.loads(answer)["problem"] if answer else "it does not answer"
        if problem:
            self._process.kill()
            self._process.wait()
            raise SpeechUnavailable(f"The system voice cannot speak: {problem}. Or use --voice natural.")

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        return self._process.stdin, self._process.stdout


def load_voice(name: str = "natural", speed: float = 1.0) -> Voice | None:
    """A voice of `VOICES`; None for "silent". Raises ValueError for another name or speed."""
    kinds = {"natural": Voice, "system": SystemVoice, "silent": None}
    if name not in kinds:
        raise ValueError(f"There is no voice {name!r}. Use {', '.join(VOICES)}.")
    kind = kinds[name]
    return None if kind is None else kind(speed)


def speakable(text: str) -> str:
    """The words of a reply without Markdown: code blocks, emphasis, headings, links and tags are not read out."""
    text = re.sub(r"```.*?(```|$)", " ", text, flags=re.DOTALL)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"<[^<>\n]+>|\bhttps?://\S+", " ", text)
    text = re.sub(r"^\s*(#+|>+|[-*+]|\d+\.)\s+", "", text, flags=re.MULTILINE)
    return re.sub(r"[*_`~|]+", "", text).strip()


def foreign(text: str) -> bool:
    """Whether a good part of the letters are none of English."""
    letters = [character for character in text if character.isalpha()]
    return sum(not character.isascii() for character in letters) > 0.3 * len(letters)


def trimmed(samples: np.ndarray, rate: int) -> np.ndarray:
    """Samples [n] with the silence around them cut to `LEAD` and `TAIL`."""
    audible = np.flatnonzero(np.abs(samples) > SILENCE_PEAK)
    if not len(audible):
        return samples[:0]
    return samples[max(0, audible[0] - int(LEAD * rate)) : audible[-1] + int(TAIL * rate)]
