"""Hearing early: the start of an answer, worked out in a thread of its own while the closing silence is waited out."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from assistant.lanes.dialogue import Turn
from assistant.latency import StageClock

POLL = 0.01  # seconds between two looks at whether the machine is free, or the work no longer wanted


@dataclass(frozen=True)
class Ready:
    """What a lane got out of a turn's clips: what its LLM gets, the words, and how sure it is of each of them.

    `clock` holds what that cost; its zero is the moment it was asked for.
    """

    contents: Sequence[Tensor | str]
    heard: str | None
    clock: StageClock
    confidence: tuple[float, ...] | None = None


Hear = Callable[[Callable[[], bool]], Ready | None]


class Anticipation:
    """A bet that a turn is over. `answer` takes what is ready when it was; `drop` when the person went on speaking."""

    def __init__(self, turn: Turn, machine: threading.Lock, hear: Hear) -> None:
        """`hear` works with `machine` held, asks now and then whether it is still wanted, and returns None if not."""
        self.turn = turn
        self._machine = machine
        self._hear = hear
        self._dropped = threading.Event()
        self._state = threading.Lock()  # held while it is decided whether the work begins
        self._begun = False
        self._ready: Ready | None = None
        self._thread = threading.Thread(target=self._work, name="anticipation", daemon=True)
        self._thread.start()

    def drop(self) -> None:
        """The work is not wanted any more. Returns at once; what is under way ends at its next stage."""
        self._dropped.set()

    def take(self, turn: Turn) -> Ready | None:
        """What was heard, if this is the turn that was bet on and the machine was free for it; else None.

        Work under way is waited for, which counts: the clock's zero becomes the moment of this call.
        """
        asked = time.perf_counter()
        with self._state:
            if not self._begun or not turn.same(self.turn):
                self.drop()
                return None
        self._thread.join()
        if self._ready is not None:
            self._ready.clock.restart((time.perf_counter() - asked) * 1000)
        return self._ready

    def _work(self) -> None:
        while not self._machine.acquire(timeout=POLL):
            if self._dropped.is_set():
                return
        try:
            with self._state:
                self._begun = not self._dropped.is_set()
            if self._begun:
                self._ready = self._hear(lambda: not self._dropped.is_set())
        finally:
            self._machine.release()
