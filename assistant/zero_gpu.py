"""The lanes on a ZeroGPU Space, where a GPU is lent for the length of one call of a decorated function."""

from collections.abc import Callable, Generator, Iterator, Mapping
from types import ModuleType

from assistant.audio import AudioError, Utterance
from assistant.lanes import Chunk, Lane

LONGEST_ANSWER = 60  # seconds of GPU a lane asks for; less would end long replies, more lets visitors wait longer

Answerer = Callable[[str, Utterance, str | None], Generator[Chunk | str, None, None]]


class ZeroGPULane(Lane):
    """A lane that answers within a call of `answerer`."""

    def __init__(self, name: str, precision: str, answerer: Answerer) -> None:
        self.name, self.precision, self._answerer = name, precision, answerer

    def answer(self, utterance: Utterance, instruction: str | None = None) -> Iterator[Chunk]:
        """See `Lane.answer`."""
        stream = self._answerer(self.name, utterance, instruction)
        try:
            for item in stream:
                if isinstance(item, str):
                    raise AudioError(item)
                yield item
        finally:
            stream.close()


def on_zero_gpu(lanes: Mapping[str, Lane], spaces: ModuleType) -> dict[str, Lane]:
    """The lanes, each of whose answers borrows a GPU; elsewhere the decorator of the `spaces` package does nothing.

    Must be called before the page is served: that is when the package looks for decorated functions, and hands the
    models that are on "cuda" over to the processes that will have one.
    """

    def answer(name: str, utterance: Utterance, instruction: str | None) -> Generator[Chunk | str, None, None]:
        try:  # it runs in another process, from which errors return as their names: the words are sent instead
            yield from lanes[name].answer(utterance, instruction)
        except AudioError as error:
            yield str(error)

    lent = spaces.GPU(duration=LONGEST_ANSWER)(answer)
    return {name: ZeroGPULane(name, lane.precision, lent) for name, lane in lanes.items()}
