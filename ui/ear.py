"""A visitor's open microphone: sound from the browser in, turns to answer out."""

import contextlib
import queue
import threading
from collections.abc import Callable

import numpy as np

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Turn
from assistant.lanes.listening import Listener
from assistant.sound.audio import SAMPLE_RATE, LiveResampler, Utterance

RATES = range(8_000, 192_001)  # samples a second that browsers may send
WAITING = 4  # turns that may wait to be answered; then the oldest is dropped


def sample_rate(given: int) -> int:
    """Samples a second as a browser gives them; raises ValueError for what no microphone has."""
    if given not in RATES:
        raise ValueError(f"A microphone does not send {given} samples a second.")
    return given


class Ear:
    """Says when somebody speaks, and has the turn ready when they have finished.

    `hear` and `restart` are called by one thread at a time, `next` by another one.
    """

    def __init__(
        self,
        turn_of: Callable[[Utterance], Turn],
        anticipate: Callable[[Utterance], Anticipation | None],
        state: Callable[[str], None],
        rate: int = SAMPLE_RATE,
    ) -> None:
        """`anticipate` lets a lane begin early; `state` is told "hearing", and "thinking" when they have finished."""
        self._turn_of, self._state = turn_of, state
        self._listener = Listener(anticipate, lambda: state("hearing"))
        self._resampler = LiveResampler(rate)
        self._turns: queue.Queue[tuple[Turn, Anticipation | None] | None] = queue.Queue()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing is heard any more."""
        return self._closed.is_set()

    def restart(self, rate: int) -> None:
        """Forget the unfinished utterance: the microphone was closed for a while, or another one was opened."""
        self._resampler = LiveResampler(rate)
        self._listener.reset()

    def hear(self, sound: bytes) -> None:
        """The next samples: 16-bit little-endian mono at the rate of `restart`."""
        if self.closed:
            return
        samples = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2")
        for overheard in self._listener.feed(self._resampler.feed(samples)):
            self._state("thinking")
            while self._turns.qsize() >= WAITING:
                with contextlib.suppress(queue.Empty):
                    self._turns.get_nowait()
            self._turns.put((self._turn_of(overheard.utterance), overheard.early))

    def next(self, timeout: float) -> tuple[Turn, Anticipation | None] | None:
        """A finished turn and what was heard of it early; None after `timeout` seconds, or when the ear is closed."""
        with contextlib.suppress(queue.Empty):
            return self._turns.get(timeout=timeout)
        return None

    def close(self) -> None:
        """Hear nothing any more."""
        self._closed.set()
        self._listener.drop()
        self._turns.put(None)  # wakes whoever waits
