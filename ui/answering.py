"""From something said to both lanes' replies on the page: waiting, streaming, speaking, being interrupted."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from assistant import dialogue
from assistant.anticipation import Anticipation
from assistant.audio import AudioError, load_utterance
from assistant.lanes import Chunks, precision_in_words
from assistant.latency import hardware
from ui import fragments
from ui.comparison import comparison
from ui.lane_card import card, cards
from ui.layout import Layout, Updates, read_presets
from ui.machine import Crowded, Machine, Place
from ui.race import ORDER, Progress, race
from ui.session import Answer, Turn
from ui.texts import TEXTS, Texts
from ui.thread import thread
from ui.visit import Visit, Visits, Voices, Wishes

LOG = logging.getLogger("earshot.page")
POLL = 0.2  # seconds between two looks at whether a visitor's turn has come
LISTENING = 1.0  # seconds between two looks at whether a silent visitor is still there

Make = Callable[[Visit], dialogue.Turn]  # what is said; raises AudioError when it is nothing that can be answered


class Answering:
    """Streams updates of the page's components; what belongs to a visitor is in their `Visit`."""

    def __init__(self, machine: Machine, visits: Visits, voices: Voices, layout: Layout) -> None:
        self.machine, self.visits, self.layout = machine, visits, layout
        self._voices = voices
        self._presets = read_presets()

    @property
    def measured_on(self) -> str:
        """The machine and its arithmetic in words."""
        return hardware() if self.machine.loading else f"{hardware()}; {precision_in_words(self.machine.lanes)}"

    def recording(self, key: str, path: str | None, *wishes: Any) -> Iterator[Updates]:
        """Answer what was recorded or uploaded."""

        def make(_: Visit) -> dialogue.Turn:
            if path is None:
                raise AudioError(TEXTS[wished.language].no_recording)
            return dialogue.Turn((load_utterance(Path(path)),), (wished.instruction or "").strip())

        wished = Wishes(*wishes)
        yield from self.answer(self._visit(key, wished), make)

    def message(self, key: str, words: str | None, *wishes: Any) -> Iterator[Updates]:
        """Answer what was written."""
        turn = dialogue.Turn((), (words or "").strip())
        yield from self.answer(self._visit(key, Wishes(*wishes)), functools.partial(_as_it_is, turn))

    def again(self, key: str, number: int | None, instruction: str | None, *wishes: Any) -> Iterator[Updates]:
        """Answer the clip of turn `number` (None: the last clip) again, with another instruction."""

        def make(visit: Visit) -> dialogue.Turn:
            spoken = [turn for turn in visit.turns if turn.said.clips and number in (None, turn.number)]
            if not spoken:
                raise AudioError(TEXTS[wished.language].no_recording)
            visit.adding = False
            return dialogue.Turn(spoken[-1].said.clips, (instruction or "").strip())

        wished = Wishes(*wishes)
        yield from self.answer(self._visit(key, wished), make)

    def listen(self, key: str, hands_free: bool, *wishes: Any) -> Iterator[Updates]:
        """Answer whatever is said from now on, until the switch is turned off or the visitor leaves."""
        visit, at = self._visit(key, Wishes(*wishes)), self.layout
        texts = TEXTS[visit.wishes.language]
        if not hands_free:
            if visit.ear is not None:
                visit.ear.close()
            yield {at.status: fragments.status(texts.ready)}
            return
        try:
            ear = self.visits.listen(visit)
        except Crowded:
            visit.tell({"state": "off"})
            yield {at.status: fragments.status(texts.crowded, "problem")}
            return
        try:
            yield {at.status: fragments.status(texts.listening)}
            while not ear.closed:
                if (heard := ear.next(LISTENING)) is None:
                    yield {at.status: gr.skip()}
                    continue
                turn, early = heard
                yield from self.answer(visit, functools.partial(_as_it_is, turn), early)
                visit.tell({"state": "listening"})
        finally:
            ear.close()
            if visit.ear is ear:
                visit.tell({"state": "off"})

    def _visit(self, key: str, wishes: Wishes) -> Visit:
        visit = self.visits.of(key)
        visit.wishes = wishes
        return visit

    def answer(self, visit: Visit, make: Make, early: Anticipation | None = None) -> Iterator[Updates]:
        """Both lanes on a turn, streamed, from a visitor's place in the line to their finished turn."""
        at, wishes, texts = self.layout, visit.wishes, TEXTS[visit.wishes.language]
        stop = visit.begin()
        message, kind = texts.done, "done"
        turn: Turn | None = None
        try:
            said = make(visit)
            with self.machine.place() as place:
                yield from self._wait(place, stop.is_set, texts)
                if not stop.is_set():
                    turn = visit.say(said, wishes.how == "together")
                    yield self._begun(visit, turn, texts)
                    start = functools.partial(self._start, visit, turn, early, stop)
                    with closing(race(start, turn.order, turn.together, stop)) as progresses:
                        for progress in progresses:
                            yield self._shown(progress, turn, texts)
            if stop.is_set():
                message, kind = texts.stopped, "idle"
        except Crowded:
            message, kind = texts.crowded, "problem"
        except AudioError as error:
            message, kind = texts.error(str(error)), "problem"
        except Exception:
            LOG.exception("The page could not answer")
            message, kind = texts.unexpected, "problem"
        finally:
            if turn is not None:
                turn.interrupted = stop.is_set() or len(turn.answers) < len(turn.order)
        if visit.stop is stop:  # nothing newer has begun
            shown = self.finished(visit, texts) if turn is not None else {}
            yield shown | {at.status: fragments.status(message, kind)}

    def _start(self, visit: Visit, turn: Turn, early: Anticipation | None, stop: threading.Event, lane: str) -> Chunks:
        wishes = visit.wishes
        voice = self._voices(wishes.voice, wishes.speed) if lane == wishes.spoken else None
        return visit.answer(lane, turn, voice, early if lane == ORDER[0] else None, stop)

    def _wait(self, place: Place, stopped: Callable[[], bool], texts: Texts) -> Iterator[Updates]:
        while not stopped() and (ahead := place.ahead(POLL)) is not None:
            yield {self.layout.status: fragments.status(self.waiting(ahead, texts), "busy")}

    def waiting(self, ahead: int, texts: Texts) -> str:
        """Why nothing happens yet, in words."""
        if (seconds := self.machine.loading) is not None:
            return str(texts.loading.format(seconds=round(seconds)))
        return str(texts.ahead.format(count=ahead))

    def _begun(self, visit: Visit, turn: Turn, texts: Texts) -> Updates:
        at = self.layout
        shown: Updates = {at.cards[name]: words for name, words in cards(None, texts).items()}
        shown[at.timing] = fragments.timing(dict.fromkeys(ORDER), texts, self.measured_on)
        shown[at.thread] = thread(visit.turns, visit.key, self._presets, texts)
        if not turn.duration:
            shown[at.message] = ""
        return shown

    def _shown(self, progress: Progress, turn: Turn, texts: Texts) -> Updates:
        """One lane's column as far as it is; the finished answer goes to the turn."""
        at, name = self.layout, progress.lane
        text = progress.text if progress.problem is None else texts.error(progress.problem)
        answer = Answer(text or (texts.empty_reply if progress.done else ""), progress.heard, progress.confidence)
        if not progress.done:
            turn.answers[name] = answer
            message = texts.answering_together if turn.together else texts.answering[name]
            return {
                at.cards[name]: card(name, texts, answer, live=True),
                at.status: fragments.status(message, "busy"),
            }
        turn.answers[name] = Answer(answer.text, answer.heard, answer.confidence, progress.latency)
        return {
            at.cards[name]: card(name, texts, answer),
            at.timing: fragments.timing(turn.latencies, texts, self.measured_on, turn.together),
        }

    def finished(self, visit: Visit, texts: Texts) -> Updates:
        """The last turn, the conversation and the session."""
        at, turns = self.layout, visit.turns
        turn = turns[-1] if turns else None
        latencies = turn.latencies if turn else dict.fromkeys(ORDER)
        shown = {at.cards[name]: words for name, words in cards(turn, texts).items()}
        return shown | {
            at.timing: fragments.timing(latencies, texts, self.measured_on, bool(turn and turn.together)),
            at.thread: thread(turns, visit.key, self._presets, texts),
            at.comparison: comparison(turns, texts),
        }


def _as_it_is(turn: dialogue.Turn, _: Visit) -> dialogue.Turn:
    return turn
