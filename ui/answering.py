"""From something said to both lanes' replies on the page: waiting, streaming, speaking, being interrupted."""

import functools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Chunks
from assistant.lanes.loading import precision_in_words
from assistant.lanes.names import EARLY, LANES
from assistant.latency import hardware
from assistant.sound.audio import AudioError, load_utterance
from ui import fragments
from ui.comparison import comparison
from ui.lane_card import card, cards
from ui.layout import Layout, Updates, read_presets
from ui.machine import Crowded, Machine, Place
from ui.progress import Progress, one_after_the_other
from ui.rounds import Answer, Round
from ui.texts import TEXTS, Texts
from ui.thread import thread
from ui.visit import Visit, Visits, Voices, Wishes

LOG = logging.getLogger("earshot.page")
POLL = 0.2  # seconds between two looks at whether a visitor's turn has come
LISTENING = 1.0  # seconds between two looks at whether a silent visitor is still there

Make = Callable[[Visit], Turn]  # what is said; raises AudioError when it is nothing that can be answered


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

        def make(_: Visit) -> Turn:
            if path is None:
                raise AudioError(TEXTS[wished.language].no_recording)
            return Turn.spoken(load_utterance(Path(path)), wished.instruction)

        wished = Wishes(*wishes)
        yield from self.answer(self._visit(key, wished), make)

    def message(self, key: str, words: str | None, *wishes: Any) -> Iterator[Updates]:
        """Answer what was written."""
        turn = Turn((), (words or "").strip())
        yield from self.answer(self._visit(key, Wishes(*wishes)), functools.partial(_as_it_is, turn))

    def again(self, key: str, number: int | None, instruction: str | None, *wishes: Any) -> Iterator[Updates]:
        """Answer the clip of round `number` (None: the last clip) again, with another instruction."""

        def make(visit: Visit) -> Turn:
            spoken = [one for one in visit.rounds if one.said.clips and number in (None, one.number)]
            if not spoken:
                raise AudioError(TEXTS[wished.language].no_recording)
            visit.adding = False
            return Turn(spoken[-1].said.clips, (instruction or "").strip())

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
        at, texts = self.layout, TEXTS[visit.wishes.language]
        stop = visit.begin()
        message, kind = texts.done, "done"
        newest: Round | None = None
        try:
            said = make(visit)
            with self.machine.place() as place:
                yield from self._wait(place, stop.is_set, texts)
                if not stop.is_set():
                    newest = visit.say(said)
                    yield self._begun(visit, newest, texts)
                    start = functools.partial(self._start, visit, newest.number, early, stop)
                    with closing(one_after_the_other(start, newest.order, stop)) as progresses:
                        for progress in progresses:
                            yield self._shown(progress, newest, texts)
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
            if newest is not None:
                newest.interrupted = stop.is_set() or len(newest.answers) < len(newest.order)
        if visit.stop is stop:  # nothing newer has begun
            shown = self.finished(visit, texts) if newest is not None else {}
            yield shown | {at.status: fragments.status(message, kind)}

    def _start(self, visit: Visit, number: int, early: Anticipation | None, stop: threading.Event, lane: str) -> Chunks:
        wishes = visit.wishes
        voice = self._voices(wishes.voice, wishes.speed) if lane == wishes.spoken else None
        return visit.answer(lane, number, voice, early if lane == EARLY else None, stop)

    def _wait(self, place: Place, stopped: Callable[[], bool], texts: Texts) -> Iterator[Updates]:
        while not stopped() and (ahead := place.ahead(POLL)) is not None:
            yield {self.layout.status: fragments.status(self.waiting(ahead, texts), "busy")}

    def waiting(self, ahead: int, texts: Texts) -> str:
        """Why nothing happens yet, in words."""
        if (seconds := self.machine.loading) is not None:
            return str(texts.loading.format(seconds=round(seconds)))
        return str(texts.ahead.format(count=ahead))

    def _begun(self, visit: Visit, newest: Round, texts: Texts) -> Updates:
        at = self.layout
        shown: Updates = {at.cards[name]: words for name, words in cards(None, texts).items()}
        shown[at.timing] = fragments.timing(dict.fromkeys(LANES), texts, self.measured_on)
        shown[at.thread] = thread(visit.rounds, visit.key, self._presets, texts)
        if not newest.duration:
            shown[at.message] = ""
        return shown

    def _shown(self, progress: Progress, newest: Round, texts: Texts) -> Updates:
        """One lane's column as far as it is; the finished answer goes to the round."""
        at, name = self.layout, progress.lane
        text = progress.text if progress.problem is None else texts.error(progress.problem)
        answer = Answer(text or (texts.empty_reply if progress.done else ""), progress.heard, progress.confidence)
        if not progress.done:
            newest.answers[name] = answer
            return {
                at.cards[name]: card(name, texts, answer, live=True),
                at.status: fragments.status(texts.answering[name], "busy"),
            }
        newest.answers[name] = Answer(answer.text, answer.heard, answer.confidence, progress.latency)
        return {
            at.cards[name]: card(name, texts, answer),
            at.timing: fragments.timing(newest.latencies, texts, self.measured_on),
        }

    def finished(self, visit: Visit, texts: Texts) -> Updates:
        """The last round, the conversation and the comparison."""
        at, rounds = self.layout, visit.rounds
        newest = rounds[-1] if rounds else None
        latencies = newest.latencies if newest else dict.fromkeys(LANES)
        shown = {at.cards[name]: words for name, words in cards(newest, texts).items()}
        return shown | {
            at.timing: fragments.timing(latencies, texts, self.measured_on),
            at.thread: thread(rounds, visit.key, self._presets, texts),
            at.comparison: comparison(rounds, texts),
        }


def _as_it_is(turn: Turn, _: Visit) -> Turn:
    return turn
