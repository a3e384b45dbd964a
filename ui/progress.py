"""Both lanes answer one turn, one after the other, so that each has the machine to itself; who begins alternates."""

import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass

from assistant.lanes.lane import Chunks, Heard, Reply, TextDelta
from assistant.lanes.names import LANES
from assistant.latency import Latency
from assistant.sound.audio import AudioError

REFRESH = 0.05  # seconds between two looks at a growing reply: showing every token would slow down what is timed


@dataclass(frozen=True)
class Progress:
    """How far a lane is.

    `heard` is an empty string until it is known and None when the lane keeps no reading; `confidence` is one
    probability for each of its parts between spaces, where the lane gives them. `latency` comes with the whole
    reply. `problem` is what the lane says when it cannot answer. `done` marks the last progress of a lane.
    """

    lane: str
    heard: str | None = ""
    confidence: Sequence[float] | None = None
    text: str = ""
    latency: Latency | None = None
    problem: str | None = None
    done: bool = False


def order_of(number: int) -> tuple[str, ...]:
    """Who begins in a visitor's round `number`, counted from 0: the lanes take turns."""
    return LANES if number % 2 == 0 else LANES[::-1]


def one_after_the_other(
    answer: Callable[[str], Chunks], order: Sequence[str], stop: threading.Event
) -> Generator[Progress, None, None]:
    """Stream what the lanes do, the first progress of each as it starts; closing the generator stops them.

    Parameters
    ----------
    answer: starts a lane, by name.
    stop: once set, no further lane starts; the one that has started must look at it itself.
    """
    for name in order:
        if stop.is_set():
            return
        with closing(_follow(answer(name), name)) as progress:
            yield from progress


def _follow(chunks: Chunks, name: str) -> Generator[Progress, None, None]:
    yield Progress(name)
    heard: str | None = ""
    confidence: Sequence[float] | None = None
    text, shown = "", 0.0
    try:
        with closing(chunks):
            for chunk in chunks:
                if isinstance(chunk, Reply):
                    yield Progress(name, heard, confidence, chunk.text, chunk.latency, done=True)
                    return
                if isinstance(chunk, Heard):
                    heard = chunk.text
                    confidence = chunk.confidence
                elif isinstance(chunk, TextDelta):
                    text += chunk.text
                    if time.monotonic() - shown < REFRESH:
                        continue
                    shown = time.monotonic()
                yield Progress(name, heard, confidence, text)
        raise RuntimeError(f"The {name} lane ended without a reply.")
    except AudioError as error:
        yield Progress(name, heard, confidence, problem=str(error), done=True)
