"""A visitor's open microphone: sound from the browser in, turns to answer out."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

import numpy as np

from assistant import dialogue
from assistant.anticipation import Anticipation
from assistant.audio import LiveResampler
from assistant.endpointing import Closed, Endpointer, Event, Paused, Resumed, Started

if TYPE_CHECKING:
    from ui.visit import Visit

RATES = range(8_000, 192_001)  # samples a second that browsers may send
WAITING = 4  # turns that may wait to be answered; then the oldest is dropped


def sample_rate(given: int) -> int:
    """Samples a second as a browser gives them; raises ValueError for what no microphone has."""
    if given not in RATES:
        raise ValueError(f"A microphone does not send {given} samples a second.")
    return given


class Ear:
    """Tells its visit when somebody speaks, and has the turn ready when they have finished.

    `hear` and `restart` are called by one thread at a time, `next` by another one.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._endpointer = Endpointer()
        self._resampler = LiveResampler(visit.rate)
        self._early: Anticipation | None = None
        self._turns: queue.Queue[tuple[dialogue.Turn, Anticipation | None] | None] = queue.Queue()
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether nothing is heard any more."""
        return self._closed.is_set()

    def restart(self, rate: int) -> None:
        """Forget the unfinished utterance: the microphone was closed for a while, or another one was opened."""
        self._resampler = LiveResampler(rate)
        self._endpointer.reset()
        self._drop_early()

    def hear(self, sound: bytes) -> None:
        """The next samples: 16-bit little-endian mono at the rate of `restart`."""
        if self.closed:
            return
        samples = np.frombuffer(sound[: len(sound) // 2 * 2], "<i2")
        for event in self._endpointer.feed(self._resampler.feed(samples)):
            self._take(event)

    def next(self, timeout: float) -> tuple[dialogue.Turn, Anticipation | None] | None:
        """A finished turn and what was heard of it early; None after `timeout` seconds, or when the ear is closed."""
        with contextlib.suppress(queue.Empty):
            return self._turns.get(timeout=timeout)
        return None

    def close(self) -> None:
        """Hear nothing any more."""
        self._closed.set()
        self._drop_early()
        self._turns.put(None)  # wakes whoever waits

    def _take(self, event: Event) -> None:
        if isinstance(event, Started):
            self._visit.interrupt()
            self._visit.tell({"state": "hearing"})
        elif isinstance(event, Paused):
            self._early = self._visit.anticipate(event.utterance)
        elif isinstance(event, Resumed):
            self._drop_early()
        elif isinstance(event, Closed):
            early, self._early = self._early, None
            self._visit.tell({"state": "thinking"})
            while self._turns.qsize() >= WAITING:
                with contextlib.suppress(queue.Empty):
                    self._turns.get_nowait()
            self._turns.put((self._visit.turn_of(event.utterance), early))

    def _drop_early(self) -> None:
        if self._early is not None:
            self._early.drop()
            self._early = None
