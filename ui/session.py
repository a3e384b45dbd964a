"""What one visitor has asked and been answered, and what may be compared of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from assistant.benchmark import Measurement
from assistant.latency import Latency
from ui.race import ORDER

LONGEST = 200  # turns kept; a page left open for days must not fill the memory


@dataclass(frozen=True)
class Answer:
    """What one lane made of a turn; `latency` is None when it could not answer, and `text` then says why."""

    text: str
    heard: str | None = None
    confidence: Sequence[float] | None = None
    latency: Latency | None = None


@dataclass(frozen=True)
class Turn:
    """One utterance and its answers by lane; `duration` in seconds, `order` says who began."""

    audio: Path
    duration: float
    instruction: str | None
    order: tuple[str, ...]
    together: bool
    answers: Mapping[str, Answer] = field(default_factory=dict)

    @property
    def latencies(self) -> dict[str, Latency | None]:
        """The lanes' latencies in the order in which the page shows them."""
        return {name: self.answers[name].latency if name in self.answers else None for name in ORDER}

    @property
    def comparable(self) -> bool:
        """Whether the lanes had the machine to themselves and both said something."""
        known = [latency for latency in self.latencies.values() if latency and latency.first_token is not None]
        return not self.together and len(known) == len(ORDER)


def with_turn(turns: Sequence[Turn], turn: Turn) -> list[Turn]:
    """The session with one turn more, its oldest forgotten when there are too many."""
    return [*turns, turn][-LONGEST:]


def measurements(turns: Sequence[Turn]) -> list[Measurement]:
    """The turns that can be compared, as `assistant.benchmark` summarises them."""
    return [
        Measurement(number, turn.duration, lane, latency)
        for number, turn in enumerate(turns)
        if turn.comparable
        for lane, latency in turn.latencies.items()
        if latency is not None
    ]
