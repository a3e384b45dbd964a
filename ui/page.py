"""The page: what happens when someone speaks, asks, stops or leaves. Everything a visitor says stays theirs."""

import json
import logging
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.audio import AudioError, load_utterance
from assistant.lanes import precision_in_words
from assistant.latency import Latency, hardware
from assistant.tts import SpeechUnavailable, Voice
from ui import fragments
from ui.comparison import comparison
from ui.export import write_export
from ui.lane_card import card, cards
from ui.layout import Layout, Updates, read_samples
from ui.machine import Crowded, Machine, Place
from ui.race import ORDER, Progress, order_of, race
from ui.session import Answer, Turn, with_turn
from ui.texts import ENGLISH, TEXTS, Texts

LOG = logging.getLogger("earshot.page")
KEEP = 3600  # seconds after which a visitor's recordings are deleted from this machine
POLL = 0.2  # seconds between two looks at whether a visitor's turn has come

COMMON: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Never kept waiting by Gradio, yet queued: only a queued listener streams, and notices a visitor who leaves. The
# line in which visitors wait for the models is our own, since it can say how long it is.
AT_ONCE: dict[str, Any] = COMMON | {"concurrency_limit": None}


def build_page(machine: Machine, voice: Voice | None, samples: Path) -> gr.Blocks:
    """The page on the lanes of `machine`, which may still be loading.

    Parameters
    ----------
    voice: speaks replies; None leaves them written.
    samples: folder with `manifest.jsonl` (audio, text, title, optional instruction) and the clips it names.
    """
    clips = read_samples(samples)
    if clips:
        gr.set_static_paths([samples])
    with gr.Blocks(title=ENGLISH.title, analytics_enabled=False, delete_cache=(KEEP, KEEP)) as page:
        _Page(page, machine, voice, Layout(hardware(), clips))
    return page


class _Page:
    """The listeners of one page; what differs from visitor to visitor is in its `gr.State`s alone."""

    def __init__(self, page: gr.Blocks, machine: Machine, voice: Voice | None, layout: Layout) -> None:
        self.machine, self.voice, self.layout = machine, voice, layout
        self.ticket = gr.State("")  # a new one for each request, which cancels the running one
        self.turns: Any = gr.State([])  # what this visitor has asked, a list of `Turn`
        self.unspoken = gr.State(False)  # whether the last turn is new: a bad recording leaves the old one, unrepeated
        self._listen_to_asking()
        self._listen_to_the_rest(page)

    @property
    def measured_on(self) -> str:
        """The machine and its arithmetic in words."""
        return hardware() if self.machine.loading else f"{hardware()}; {precision_in_words(self.machine.lanes)}"

    def _listen_to_asking(self) -> None:
        at, ticket = self.layout, self.ticket
        outputs = [
            at.status,
            at.stop,
            self.turns,
            self.unspoken,
            at.speech,
            at.timing,
            at.comparison,
            *at.cards.values(),
        ]
        given = [at.recording, at.instruction, at.race, at.language, self.turns]
        answering = ticket.change(self.answer, given, outputs, trigger_mode="multiple", **AT_ONCE)
        heard = [self.turns, at.spoken, at.language]
        speaking = [
            answering.success(self.speak, [*heard, self.unspoken], at.speech, **AT_ONCE),
            at.spoken.change(self.speak, heard, at.speech, trigger_mode="always_last", **AT_ONCE),
        ]
        running = [answering, *speaking]

        def cancel_first(triggers: list[Any]) -> None:
            """Listeners run in the order of their definition: what runs must end before what follows begins."""
            gr.on(triggers, None, cancels=running, **COMMON)

        asked = [at.recording.stop_recording, at.recording.upload, at.ask.click, at.instruction.submit]
        cancel_first(asked)
        changed = [ticket, self.unspoken, at.stop]
        gr.on(asked, self.request, None, changed, **AT_ONCE)
        for button, wording in at.presets:
            button.click(None, None, at.instruction, js=f"() => {json.dumps(wording)}", **COMMON)
        for button, clip in at.clips:

            def pick(clip: dict[str, str] = clip) -> Updates:
                chosen = {at.recording: clip["audio"], at.instruction: clip.get("instruction") or ""}
                return self.request() | chosen

            cancel_first([button.click])
            button.click(pick, None, [*changed, at.recording, at.instruction], **AT_ONCE)
        cancel_first([at.stop.click])
        at.stop.click(self.stopped, at.language, [at.status, at.stop], queue=False, **COMMON)
        at.talk.click(None, js="() => { earshot.talk(); }", **COMMON)

    def _listen_to_the_rest(self, page: gr.Blocks) -> None:
        at = self.layout
        shown = [*at.worded, at.status, at.speech, at.timing, at.comparison, *at.cards.values()]
        settled: dict[str, Any] = {"fn": None, "js": "() => { earshot.settle(); }"} | COMMON
        given = [at.language, self.turns]
        chosen = "(_, turns) => [earshot.language(), turns]"
        settling = page.load(self.greet, given, shown, js=chosen, **AT_ONCE).then(**settled)
        settling.then(self.wait_for_models, at.language, at.status, **AT_ONCE)
        chosen = "(code, turns) => [earshot.choose(code), turns]"
        at.language.input(self.translate, given, shown, js=chosen, **AT_ONCE).then(**settled)
        for kind, button in at.exports.items():

            def export(turns: list[Turn], language: str, kind: str = kind) -> Updates:
                return self.export(kind, turns, TEXTS[language])

            button.click(export, [self.turns, at.language], [at.download, at.status], **AT_ONCE).success(
                None, at.download, js="(file) => { if (file) document.querySelector('#download').click(); }", **COMMON
            )

    def request(self) -> Updates:
        """A new ticket: its change is what starts an answer."""
        return {self.ticket: secrets.token_hex(8), self.unspoken: False, self.layout.stop: gr.update(interactive=True)}

    def answer(
        self, path: str | None, instruction: str | None, how: str, language: str, turns: list[Turn]
    ) -> Iterator[Updates]:
        """Both lanes on what was recorded, streamed, from a visitor's place in the line to their finished turn."""
        at, texts = self.layout, TEXTS[language]
        message, kind = texts.done, "done"
        try:
            if path is None:
                raise AudioError(texts.no_recording)
            utterance = load_utterance(path)
            wording, order, together = (instruction or "").strip() or None, order_of(len(turns)), how == "together"
            answers: dict[str, Answer] = {}
            yield self._empty(texts)
            with self.machine.place() as place:
                yield from self._wait(place, texts, at.status)
                with closing(race(self.machine.lanes, order, utterance, wording, together)) as progresses:
                    for progress in progresses:
                        yield self._shown(progress, answers, together, texts)
            turn = Turn(Path(path), utterance.duration, wording, order, together, answers)
            turns = with_turn(turns, turn)
            yield self._finished(turns, texts) | {self.turns: turns, self.unspoken: True}
        except Crowded:
            message, kind = texts.crowded, "problem"
        except AudioError as error:
            message, kind = texts.error(str(error)), "problem"
        except Exception:
            LOG.exception("The page could not answer")
            message, kind = texts.unexpected, "problem"
        yield {at.status: fragments.status(message, kind), at.stop: gr.update(interactive=False)}

    def _wait(self, place: Place, texts: Texts, shown: Any) -> Iterator[Updates]:
        while (ahead := place.ahead(POLL)) is not None:
            yield {shown: fragments.status(self._waiting(ahead, texts), "busy")}

    def _waiting(self, ahead: int, texts: Texts) -> str:
        if (seconds := self.machine.loading) is not None:
            return texts.loading.format(seconds=round(seconds))
        return texts.ahead.format(count=ahead)

    def _empty(self, texts: Texts) -> Updates:
        at = self.layout
        timing = fragments.timing(dict.fromkeys(ORDER), texts, self.measured_on)
        emptied = {at.cards[name]: words for name, words in cards(None, texts).items()}
        return emptied | {at.timing: timing, at.speech: fragments.note(texts.spoken_idle)}

    def _shown(self, progress: Progress, answers: dict[str, Answer], together: bool, texts: Texts) -> Updates:
        """One lane's column as far as it is; the finished answer goes to `answers`."""
        at, name = self.layout, progress.lane
        text = progress.text if progress.problem is None else texts.error(progress.problem)
        answer = Answer(text or (texts.empty_reply if progress.done else ""), progress.heard, progress.confidence)
        if not progress.done:
            message = texts.answering_together if together else texts.answering[name]
            return {
                at.cards[name]: card(name, texts, answer, live=True),
                at.status: fragments.status(message, "busy"),
            }
        answers[name] = Answer(answer.text, answer.heard, answer.confidence, progress.latency)
        latencies: dict[str, Latency | None] = {
            lane: answers[lane].latency if lane in answers else None for lane in ORDER
        }
        return {
            at.cards[name]: card(name, texts, answer),
            at.timing: fragments.timing(latencies, texts, self.measured_on, together),
        }

    def _finished(self, turns: list[Turn], texts: Texts) -> Updates:
        """The last turn and the session."""
        at, turn = self.layout, turns[-1] if turns else None
        latencies = turn.latencies if turn else dict.fromkeys(ORDER)
        shown = {at.cards[name]: words for name, words in cards(turn, texts).items()}
        together = bool(turn and turn.together)
        timing = fragments.timing(latencies, texts, self.measured_on, together)
        return shown | {at.timing: timing, at.comparison: comparison(turns, texts)}

    def speak(self, turns: list[Turn], choice: str, language: str, wanted: bool = True) -> Iterator[Updates]:
        """The reply of the chosen lane, once the machine is free."""
        shown, texts = self.layout.speech, TEXTS[language]
        answer = turns[-1].answers.get(choice) if turns else None
        if not wanted:
            yield {shown: gr.skip()}
            return
        if choice == "off" or answer is None or answer.latency is None or not answer.text.strip():
            yield {shown: fragments.note(texts.spoken_off if choice == "off" else texts.spoken_idle)}
            return
        yield {shown: fragments.note(texts.speaking)}
        try:
            with self.machine.place() as place:
                while place.ahead(POLL) is not None:
                    yield {shown: fragments.note(texts.speaking)}
                player = fragments.player(self.voice, answer.text, texts)
        except Crowded:
            player = fragments.note(texts.crowded)
        except SpeechUnavailable as error:
            player = fragments.note(texts.error(str(error)) or texts.no_voice)
        except Exception:
            LOG.exception("The page could not speak")
            player = fragments.note(texts.unexpected)
        yield {shown: player}

    def stopped(self, language: str) -> Updates:
        """After Stop: what has been shown so far stays."""
        at = self.layout
        return {at.status: fragments.status(TEXTS[language].stopped), at.stop: gr.update(interactive=False)}

    def greet(self, language: str, turns: list[Turn]) -> Updates:
        """The page in the visitor's language; English is how it comes, and may be in use by now."""
        if language == ENGLISH.code:
            return {self.layout.language: gr.skip()}
        return self.translate(language, turns)

    def translate(self, language: str, turns: list[Turn]) -> Updates:
        """The whole page in a language, with what this visitor has been answered so far."""
        at, texts = self.layout, TEXTS[language]
        said = {at.status: fragments.status(texts.ready), at.speech: fragments.note(texts.spoken_idle)}
        words = at.in_language(texts)
        words[at.language] = gr.update(value=language, label=texts.language)
        return words | said | self._finished(turns, texts)

    def wait_for_models(self, language: str) -> Iterator[Updates]:
        """Say that the models are loading until they are there."""
        at, texts = self.layout, TEXTS[language]
        if self.machine.loading is None:
            yield {at.status: gr.skip()}
            return
        while self.machine.loading is not None:
            yield {at.status: fragments.status(self._waiting(0, texts), "busy")}
            self.machine.wait(1.0)
        yield {at.status: fragments.status(texts.ready)}

    def export(self, kind: str, turns: list[Turn], texts: Texts) -> Updates:
        """The session as a file to download, which Gradio serves from its cache and deletes like a recording."""
        at = self.layout
        if not turns:
            return {at.download: None, at.status: fragments.status(texts.nothing_to_export, "problem")}
        with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
            file = write_export(kind, turns, self.measured_on, Path(folder))
            return {at.download: at.download.move_resource_to_block_cache(file), at.status: gr.skip()}
