"""Both lanes answer one turn: one after the other, so that the figures are fair, or together."""

import contextvars
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from assistant.audio import AudioError
from assistant.lanes import Chunks, Heard, Reply, TextDelta
from assistant.latency import Latency

ORDER = ("end_to_end", "cascade")
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


def order_of(turn: int) -> tuple[str, ...]:
    """Who begins in a visitor's turn number `turn`, counted from 0: they take turns."""
    return ORDER if turn % 2 == 0 else ORDER[::-1]


def race(
    answer: Callable[[str], Chunks], order: Sequence[str], together: bool, stop: threading.Event
) -> Generator[Progress, None, None]:
    """Stream what the lanes do, the first progress of each as it starts; closing the generator stops them.

    Whether lanes that were started together really overlap is up to them: those on one LLM may take turns on it.

    Parameters
    ----------
    answer: starts a lane, by name.
    stop: once set, no further lane starts; those that have started must look at it themselves.
    """
    if together:
        yield from _together([_follow(answer(name), name) for name in order])
        return
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


def _together(streams: Sequence[Generator[Progress, None, None]]) -> Iterator[Progress]:
    """What several streams yield, as it comes; their threads have ended when this has."""
    news: queue.SimpleQueue[Progress | Exception | None] = queue.SimpleQueue()
    cancelled = threading.Event()

    def work(stream: Generator[Progress, None, None]) -> None:
        try:
            with closing(stream):
                for progress in stream:
                    if cancelled.is_set():
                        return
                    news.put(progress)
        except Exception as error:  # carried to whoever reads the news
            news.put(error)
        finally:
            news.put(None)

    # Each in a copy of this context: on ZeroGPU it says whose visit this is.
    threads = [threading.Thread(target=contextvars.copy_context().run, args=(work, stream)) for stream in streams]
    for thread in threads:
        thread.start()
    try:
        running = len(threads)
        while running:
            item = news.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        cancelled.set()
        for thread in threads:
            thread.join()
