"""One visitor: their conversation, what they wish, their open microphone, and the way to their browser."""

import re
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.conversation import Conversation, Exchange
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Chunk, Chunks
from assistant.lanes.names import EARLY, END_TO_END
from assistant.limits import MAX_EARS, MAX_VISITORS
from assistant.sound.audio import SAMPLE_RATE, Utterance
from assistant.voice.spoken_reply import Sound, Unspoken, speak, words_heard
from assistant.voice.tts import Voice
from ui.ear import Ear
from ui.machine import Crowded, Machine
from ui.progress import order_of
from ui.rounds import Round, with_round

KEY = re.compile(r"[\w-]{22,64}")  # 128 random bits take 22 such characters

Voices = Callable[[str, float], Voice | None]  # name and speed -> a voice, None for silence
Send = Callable[[Mapping[str, Any], bytes | None], None]


@dataclass(frozen=True)
class Wishes:
    """How a visitor wants to be answered; the values of the page's controls, in their order."""

    instruction: str | None = None
    spoken: str = END_TO_END
    voice: str = "natural"
    speed: float = 1.0
    language: str = "en"


@dataclass(eq=False)
class SpokenReply:
    """The pieces of a reply that were sent to be heard, and how much of it was when it was cut."""

    exchange: Exchange
    lane: str
    number: int
    pieces: list[str]
    over: bool = False  # the lane has ended
    heard: float | None = None  # pieces, the last one in part

    def said(self) -> str:
        """The text that was heard before the cut, to the word."""
        whole, part = divmod(self.heard or 0.0, 1)
        return "".join(self.pieces[: int(whole)]) + words_heard("".join(self.pieces[int(whole) : int(whole) + 1]), part)


class Visit:
    """A visitor's own side of the page. `key` is known to them alone: their page has drawn it at random."""

    def __init__(self, machine: Machine, key: str) -> None:
        self.key = key
        self.wishes = Wishes()
        self.ear: Ear | None = None
        self.rate = SAMPLE_RATE  # of their microphone
        self._machine = machine
        self._lock = threading.Lock()
        self._send: Send | None = None
        self.clear()

    def clear(self) -> None:
        """Forget all that was said."""
        self.rounds: list[Round] = []
        self.editing = False  # the next turn replaces the last one
        self.adding = False  # and begins with its clips
        self.stop = threading.Event()
        self._conversation: Conversation | None = None
        self._spoken: SpokenReply | None = None
        self._count = 0

    @property
    def conversation(self) -> Conversation:
        """What the lanes know; only to be asked for once the models are there."""
        with self._lock:
            if self._conversation is None:
                self._conversation = Conversation(self._machine.lanes)
            return self._conversation

    def begin(self) -> threading.Event:
        """Whatever is being answered ends; what comes back ends what begins now."""
        self.interrupt()
        self.stop = threading.Event()
        return self.stop

    def interrupt(self) -> None:
        """Be silent at once, on both lanes and in the browser."""
        self.stop.set()
        self.tell({"silence": True})

    def say(self, said: Turn) -> Round:
        """Put a turn into the conversation, in place of the last one while that is edited, for a round of answers.

        Raises AudioError as `Conversation.say` does; then the last turn can still be edited.
        """
        replace = self.editing and bool(self.rounds)
        if replace and self.adding:
            last = self.rounds[-1].said
            said = Turn((*last.clips, *said.clips), said.text or last.text)
        exchange = self.conversation.edit_last(said) if replace else self.conversation.say(said)
        self.editing = self.adding = False
        earlier = self.rounds[:-1] if replace else self.rounds
        newest = Round(self._count, exchange.turn, order_of(len(earlier)), said.duration)
        self._count += 1
        self.rounds = with_round(earlier, newest)
        return newest

    def answer(
        self, lane: str, number: int, voice: Voice | None, early: Anticipation | None, stop: threading.Event
    ) -> Chunks:
        """A lane's reply to the last turn, of round `number`; with a voice the browser hears it as it is written."""
        exchange = self.conversation.exchanges[-1]
        chunks = self.conversation.answer(lane, early, stop)
        if voice is None:
            yield from chunks
            return
        self._spoken = spoken = SpokenReply(exchange, lane, number, [])
        try:
            with closing(speak(chunks, voice, stop)) as sounding:
                yield from self._spoken_aloud(sounding, spoken, stop)
        finally:
            with self._lock:
                spoken.over = True
                self._cut(spoken)

    def _spoken_aloud(
        self, chunks: Iterator[Chunk | Sound | Unspoken], spoken: SpokenReply, stop: threading.Event
    ) -> Chunks:
        for chunk in chunks:
            if isinstance(chunk, Sound):
                if not stop.is_set():
                    spoken.pieces.append(chunk.text)
                    samples = (chunk.samples.clip(-1, 1) * 32767).astype("<i2").tobytes()
                    self.tell({"sound": spoken.number, "rate": chunk.rate}, samples)
            elif isinstance(chunk, Unspoken):
                self.tell({"unspoken": chunk.reason})
            else:
                yield chunk

    def heard(self, number: int, pieces: float) -> None:
        """The browser was silenced when it had played so many pieces of turn `number`'s spoken reply."""
        with self._lock:
            if self._spoken is not None and self._spoken.number == number:
                self._spoken.heard = pieces
                self._cut(self._spoken)

    def _cut(self, spoken: SpokenReply) -> None:
        """A reply that was silenced stays in the conversation as far as it was heard, once its lane has ended."""
        known = self._conversation.exchanges[-1:] if self._conversation else []
        if spoken.over and spoken.heard is not None and self._conversation and known == [spoken.exchange]:
            self._conversation.cut(spoken.lane, spoken.said())

    def anticipate(self, utterance: Utterance) -> Anticipation | None:
        """Let the end-to-end lane begin with what may be a whole turn; None where it cannot."""
        if self._machine.loading is not None or self.editing or EARLY not in self._machine.lanes:
            return None
        return self.conversation.anticipate(EARLY, self.turn_of(utterance))

    def turn_of(self, utterance: Utterance) -> Turn:
        """An utterance with the instruction that holds at the moment."""
        return Turn.spoken(utterance, self.wishes.instruction)

    def open_ear(self) -> Ear:
        """Listen from now on, in place of the ear that may be open."""

        def state(name: str) -> None:
            if name == "hearing":
                self.interrupt()
            self.tell({"state": name})

        if self.ear is not None:
            self.ear.close()
        self.ear = Ear(self.turn_of, self.anticipate, state, self.rate)
        return self.ear

    def connect(self, send: Send | None) -> None:
        """The browser can be reached through `send`, from any thread; None: not any more."""
        self._send = send

    @property
    def connected(self) -> bool:
        """Whether the browser can be reached."""
        return self._send is not None

    def tell(self, about: Mapping[str, Any], content: bytes | None = None) -> None:
        """Send something to the browser, if it is there."""
        if (send := self._send) is not None:
            send(about, content)

    def leave(self) -> None:
        """The visitor is gone."""
        self.interrupt()
        if self.ear is not None:
            self.ear.close()


class Visits:
    """Everybody who is here, by key."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._visits: OrderedDict[str, Visit] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: str) -> Visit | None:
        """The visitor with this key."""
        with self._lock:
            return self._visits.get(key)

    def of(self, key: str | None) -> Visit:
        """The visitor with this key, new or not; one with another key when it is too short to be a secret."""
        if not KEY.fullmatch(key or ""):
            key = secrets.token_urlsafe(16)
        forgotten = None
        with self._lock:
            visit = self._visits.get(str(key)) or Visit(self._machine, str(key))
            self._visits[visit.key] = visit
            self._visits.move_to_end(visit.key)
            if len(self._visits) > MAX_VISITORS:
                _, forgotten = self._visits.popitem(last=False)
        if forgotten is not None:
            forgotten.leave()
        return visit

    def forget(self, visit: Visit) -> None:
        """The visitor has left; nothing of them stays."""
        with self._lock:
            self._visits.pop(visit.key, None)
        visit.leave()

    def listen(self, visit: Visit) -> Ear:
        """Open an ear for a visitor, in place of the one they may have.

        Raises
        ------
        Crowded
            Too many visitors are hands-free.
        """
        with self._lock:
            open_ears = [one for one in self._visits.values() if one is not visit and one.ear and not one.ear.closed]
        if len(open_ears) >= MAX_EARS:
            raise Crowded
        return visit.open_ear()
