"""What one visitor has said and been answered, and what may be compared of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from assistant import dialogue
from assistant.benchmark import Measurement
from assistant.conversation import MAX_SPEECH
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


@dataclass(eq=False)
class Turn:
    """What was said at once, and its answers by lane as they come.

    `number` names it within the session, `order` says which lane began. `duration` is in seconds of speech, 0 for a
    written turn; it stays when the recordings of `said` are let go.
    """

    number: int
    said: dialogue.Turn
    order: tuple[str, ...]
    together: bool
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
        return {name: self.answers[name].latency if name in self.answers else None for name in ORDER}

    @property
    def comparable(self) -> bool:
        """Whether the lanes had the machine to themselves, heard speech, and both said all they had to say."""
        known = [latency for latency in self.latencies.values() if latency and latency.first_token is not None]
        return self.duration > 0 and not self.together and not self.interrupted and len(known) == len(ORDER)


def with_turn(turns: Sequence[Turn], turn: Turn) -> list[Turn]:
    """The session with one turn more. When there is too much, old recordings are let go, then whole turns."""
    kept = [*turns, turn][-LONGEST:]
    speech = 0.0
    for one in reversed(kept):
        speech += one.duration
        if speech > MAX_SPEECH:
            one.said = dialogue.Turn((), one.said.text)
    return kept


def measurements(turns: Sequence[Turn]) -> list[Measurement]:
    """The turns that can be compared, as `assistant.benchmark` summarises them."""
    return [
        Measurement(number, turn.duration, lane, latency)
        for number, turn in enumerate(turns)
        if turn.comparable
        for lane, latency in turn.latencies.items()
        if latency is not None
    ]
