"""One visitor's conversation: what they said, and each lane's own replies to it. Visitors share the models only."""

import threading
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Dialogue, Said, Turn
from assistant.lanes.lane import Chunks, Heard, Lane
from assistant.limits import MAX_DURATION, MAX_EXCHANGES, MAX_SPEECH
from assistant.sound.audio import AudioError


@dataclass(eq=False)
class Exchange:
    """One turn and, by lane, what became of it. A lane that heard nothing, or was not asked, is missing."""

    turn: Turn
    said: dict[str, Said] = field(default_factory=dict)


class Conversation:
    """Many turns with several lanes; every lane remembers what it heard and what it replied, and nothing of the others.

    >>> conversation = Conversation(lanes)
    >>> conversation.say(Turn.spoken(utterance, "Translate into Chinese"))
    >>> for name in lanes:
    ...     for chunk in conversation.answer(name):
    ...         ...
    """

    def __init__(self, lanes: Mapping[str, Lane]) -> None:
        self._lanes = lanes
        self.clear()

    def clear(self) -> None:
        """Begin anew: nothing that was said is left."""
        self.exchanges: list[Exchange] = []
        self._dialogues = {name: Dialogue() for name in self._lanes}

    def say(self, turn: Turn) -> Exchange:
        """Add a turn for the lanes to answer. The oldest exchanges leave when too many, or too much speech, are kept.

        Raises
        ------
        AudioError
            There is nothing in it, or more speech than can be answered at once.
        """
        _check(turn)
        self.exchanges.append(Exchange(turn))
        while len(self.exchanges) > MAX_EXCHANGES or sum(one.turn.duration for one in self.exchanges) > MAX_SPEECH:
            del self.exchanges[0]
        return self.exchanges[-1]

    def edit_last(self, turn: Turn) -> Exchange:
        """Say `turn` instead of the last one, whose replies are forgotten on every lane; raises AudioError as `say`."""
        _check(turn)  # before the last one is given up
        if self.exchanges:
            taken_back = self.exchanges.pop()
            for lane in list(taken_back.said):
                self._take_back(taken_back, lane)
        return self.say(turn)

    def anticipate(self, lane: str, turn: Turn) -> Anticipation:
        """Let a lane begin with a turn that may not be over; hand what comes back to `answer`, or drop it."""
        return self._lanes[lane].anticipate(turn, self._dialogues[lane])

    def answer(self, lane: str, early: Anticipation | None = None, stop: threading.Event | None = None) -> Chunks:
        """Stream a lane's reply to the last turn, knowing what that lane was told before; see `Lane.answer`.

        However it ends, the reply stays in the conversation as far as it was said. Asked again, it is given anew.
        """
        exchange, dialogue = self.exchanges[-1], self._dialogues[lane]
        self._take_back(exchange, lane)
        with closing(self._lanes[lane].answer(exchange.turn, dialogue, early, stop)) as chunks:
            for chunk in chunks:
                if isinstance(chunk, Heard):
                    exchange.said[lane] = dialogue.exchanges[-1]
                yield chunk

    def cut(self, lane: str, spoken: str) -> None:
        """The last reply was interrupted while it was spoken: only `spoken` of it was said."""
        said = self.exchanges[-1].said.get(lane) if self.exchanges else None
        if said is not None:
            said.reply = spoken

    def _take_back(self, exchange: Exchange, lane: str) -> None:
        said, dialogue = exchange.said.pop(lane, None), self._dialogues[lane]
        dialogue.exchanges = [one for one in dialogue.exchanges if one is not said]


def _check(turn: Turn) -> None:
    if not turn.clips and not turn.text.strip():
        raise AudioError("There is nothing to answer. Speak, or write something.")
    if turn.duration > MAX_DURATION:
        raise AudioError(f"That is {turn.duration:.0f} s of speech; at most {MAX_DURATION:.0f} s fit in one turn.")
