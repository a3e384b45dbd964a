"""A visitor's rounds: what was said, what each lane answered, how long that took, and what may be compared of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from assistant.lanes.comparison import Measurement
from assistant.lanes.dialogue import Turn
from assistant.lanes.names import LANES
from assistant.latency import Latency
from assistant.limits import MAX_ROUNDS, MAX_SPEECH


@dataclass(frozen=True)
class Answer:
    """What one lane made of a turn; `latency` is None when it could not answer, and `text` then says why."""

    text: str
    heard: str | None = None
    confidence: Sequence[float] | None = None
    latency: Latency | None = None


@dataclass(eq=False)
class Round:
    """A turn and its answers by lane, as they come.

    `number` names it within the visit, `order` says which lane began. `duration` is in seconds of speech, 0 for a
    written turn; it stays when the recordings of `said` are let go.
    """

    number: int
    said: Turn
    order: tuple[str, ...]
    duration: float
    answers: dict[str, Answer] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def text(self) -> str | None:
        """The written words: a whole turn, or what to do with the speech."""
        return self.said.text.strip() or None

    @property
    def latencies(self) -> dict[str, Latency | None]:
        """The lanes' latencies in the order in which the page shows them."""
        return {name: self.answers[name].latency if name in self.answers else None for name in LANES}

    @property
    def comparable(self) -> bool:
        """Whether both lanes heard speech and said all they had to say."""
        known = [latency for latency in self.latencies.values() if latency and latency.first_token is not None]
        return self.duration > 0 and not self.interrupted and len(known) == len(LANES)


def with_round(rounds: Sequence[Round], newest: Round) -> list[Round]:
    """One round more. When there is too much, old recordings are let go, then whole rounds."""
    kept = [*rounds, newest][-MAX_ROUNDS:]
    speech = 0.0
    for one in reversed(kept):
        speech += one.duration
        if speech > MAX_SPEECH:
            one.said = Turn((), one.said.text)
    return kept


def measurements(rounds: Sequence[Round]) -> list[Measurement]:
    """The rounds that can be compared, as `assistant.lanes.comparison` summarises them."""
    return [
        Measurement(number, one.duration, lane, latency)
        for number, one in enumerate(rounds)
        if one.comparable
        for lane, latency in one.latencies.items()
        if latency is not None
    ]
