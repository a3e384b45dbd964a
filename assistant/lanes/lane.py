"""The interface of the lanes: a turn in, a reply out as typed chunks, streamed."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Dialogue, Turn
from assistant.lanes.names import HEARD_AS
from assistant.latency import Latency

TOO_MUCH = "That is more than the LLM can take in at once. Say or write it in smaller parts."
NOTHING_HEARD = "No words were heard. Speak a little louder or closer to the microphone, and try again."


@dataclass(frozen=True)
class Heard:
    """What a lane heard: the cascade's transcript, or the end-to-end lane's greedy reading.

    None when the lane has no words for it, or the turn was written. `confidence` is a probability for each word, where
    the lane knows.
    """

    text: str | None
    confidence: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the reply's text."""

    text: str


@dataclass(frozen=True)
class Reply:
    """The whole reply, last chunk of every answer."""

    text: str
    heard: str | None
    latency: Latency


Chunk = Heard | TextDelta | Reply
Chunks = Generator[Chunk, None, None]


class Lane(ABC):
    """One way from speech to a reply.

    `name` is one of `names.LANES`; `precision` says in words what arithmetic it runs on.
    """

    name: str
    precision: str = "not stated"

    @abstractmethod
    def answer(
        self,
        turn: Turn,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """Stream the reply to a turn: speech alone, speech with a written instruction about it, or text.

        Closing the iterator, or setting `stop` from another thread, ends the reply before its next token. Only one
        lane of a process works at a time, so that neither is timed while the other competes for the machine.

        Parameters
        ----------
        dialogue: what was said before; this exchange is added to it as it happens.
        early: what `anticipate` began of this very turn.

        Raises
        ------
        AudioError
            No words are heard, or more was said than the LLM can take.
        """

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        """Begin in the background with a turn that may not be over: hear it and read it into the LLM."""
        raise NotImplementedError(f"The {self.name} lane cannot hear early.")

    def reply(self, turn: Turn) -> Reply:
        """The whole reply to a turn, for whoever does not show it as it comes; raises AudioError as `answer` does."""
        for chunk in self.answer(turn):
            if isinstance(chunk, Reply):
                return chunk
        raise RuntimeError(f"The {self.name} lane ended without a reply.")


def as_record(lane: str, text: str, heard: str | None, latency: Latency | None) -> dict[str, Any]:
    """A lane's answer in the form that programs read, in `ask --json` and in what the page exports."""
    return {"text": text, HEARD_AS[lane]: heard, "latency": latency and latency.as_dict()}
