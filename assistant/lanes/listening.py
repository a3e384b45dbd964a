"""A live stream of sound -> the utterances in it, each with what a lane has made of it before it was closed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from assistant.lanes.anticipation import Anticipation
from assistant.sound.audio import Utterance
from assistant.sound.endpointing import Closed, Endpointer, Paused, Resumed, Started


@dataclass(frozen=True)
class Overheard:
    """A closed utterance, and the bet that it was over, if one was made at its last pause: `Lane.answer` takes it."""

    utterance: Utterance
    early: Anticipation | None


class Listener:
    """Bets at every pause that the speaker is done: a lane begins to hear. Who goes on speaking loses it the bet.

    `feed` and `reset` are for one thread at a time.
    """

    def __init__(
        self, anticipate: Callable[[Utterance], Anticipation | None], started: Callable[[], None] = lambda: None
    ) -> None:
        """`anticipate` lets a lane begin with what may be a whole utterance; `started` hears that somebody speaks."""
        self._anticipate, self._started = anticipate, started
        self._endpointer = Endpointer()
        self._early: Anticipation | None = None

    @property
    def betting(self) -> bool:
        """Whether a lane is hearing what may be the whole utterance."""
        return self._early is not None

    def feed(self, samples: np.ndarray) -> Iterator[Overheard]:
        """Float32 samples [n] at 16 kHz, any n -> the utterances that were closed in them."""
        for event in self._endpointer.feed(samples):
            if isinstance(event, Started):
                self._started()
            elif isinstance(event, Paused):
                self._early = self._anticipate(event.utterance)
            elif isinstance(event, Resumed):
                self.drop()
            elif isinstance(event, Closed):
                early, self._early = self._early, None
                yield Overheard(event.utterance, early)

    def reset(self) -> None:
        """Forget the unfinished utterance, as when the microphone was closed for a while."""
        self._endpointer.reset()
        self.drop()

    def drop(self) -> None:
        """What was heard early is not wanted."""
        if self._early is not None:
            self._early.drop()
            self._early = None
