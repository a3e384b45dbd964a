"""The lanes on a ZeroGPU Space, where a GPU is lent for the length of one call of a decorated function."""

import threading
from collections.abc import Callable, Generator, Mapping
from types import ModuleType

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Dialogue, Said, Turn
from assistant.lanes.lane import Chunk, Chunks, Heard, Lane, Reply, TextDelta
from assistant.latency import Latency
from assistant.model.prompt import Message
from assistant.sound.audio import AudioError

LONGEST_ANSWER = 60  # seconds of GPU a lane asks for; less would end long replies, more lets visitors wait longer

Item = Chunk | Said | str  # an exchange that has begun, its chunks, or why there is none
Answerer = Callable[[str, Turn, list[Said]], Generator[Item, None, None]]


class ZeroGPULane(Lane):
    """A lane that answers within a call of `answerer`, in another process, which sends back what was said."""

    def __init__(self, name: str, precision: str, answerer: Answerer) -> None:
        self.name, self.precision, self._answerer = name, precision, answerer

    def answer(
        self,
        turn: Turn,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """See `Lane.answer`."""
        exchanges = dialogue.exchanges if dialogue else []
        stream = self._answerer(self.name, turn, list(exchanges))
        exchange: Said | None = None
        try:
            for item in stream:
                if isinstance(item, str):
                    raise AudioError(item)
                if isinstance(item, Said):
                    exchange = item
                    exchanges.append(exchange)
                    continue
                if exchange and isinstance(item, TextDelta):
                    exchange.reply += item.text
                elif exchange and isinstance(item, Reply):
                    exchange.latency = item.latency
                yield item
                if stop and stop.is_set() and exchange and not isinstance(item, Reply):
                    yield Reply(exchange.reply.strip(), exchange.heard, Latency())
                    return
        finally:
            stream.close()

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        """Nothing: borrowing a GPU on a guess would take it from somebody who needs it."""
        return Anticipation(turn, threading.Lock(), lambda wanted: None)


def on_zero_gpu(lanes: Mapping[str, Lane], spaces: ModuleType) -> dict[str, Lane]:
    """The lanes, each of whose answers borrows a GPU; elsewhere the decorator of the `spaces` package does nothing.

    Must be called before the page is served: that is when the package looks for decorated functions, and hands the
    models that are on "cuda" over to the processes that will have one.
    """

    def answer(name: str, turn: Turn, exchanges: list[Said]) -> Generator[Item, None, None]:
        dialogue = Dialogue(exchanges)
        try:  # it runs in another process, from which errors return as their names: the words are sent instead
            for chunk in lanes[name].answer(turn, dialogue):
                if isinstance(chunk, Heard) and dialogue.exchanges:
                    latest = dialogue.exchanges[-1]
                    parts = [part if isinstance(part, str) else part.cpu() for part in latest.message.parts]
                    yield Said(Message(latest.message.role, parts), latest.heard)
                yield chunk
        except AudioError as error:
            yield str(error)

    lent = spaces.GPU(duration=LONGEST_ANSWER)(answer)
    return {name: ZeroGPULane(name, lane.precision, lent) for name, lane in lanes.items()}
