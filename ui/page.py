"""The page: which control leads to what. Everything a visitor says stays theirs."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.latency import hardware
from ui import fragments
from ui.answering import Answering
from ui.export import write_export
from ui.layout import Layout, Updates, read_samples
from ui.machine import Machine
from ui.texts import ENGLISH, TEXTS, Texts
from ui.visit import Visits, Voices, Wishes

COMMON: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
# Never kept waiting by Gradio, yet queued: only a queued listener streams, and notices a visitor who leaves. The
# line in which visitors wait for the models is our own, since it can say how long it is.
AT_ONCE: dict[str, Any] = COMMON | {"concurrency_limit": None, "trigger_mode": "multiple"}
DIRECT: dict[str, Any] = COMMON | {"queue": False, "trigger_mode": "multiple"}


def build_page(machine: Machine, visits: Visits, voices: Voices, samples: Path) -> gr.Blocks:
    """The page on the lanes of `machine`, which may still be loading.

    Parameters
    ----------
    voices: speaks replies, by name and speed.
    samples: folder with `manifest.jsonl` (audio, text, title, optional instruction) and the clips it names.
    """
    clips = read_samples(samples)
    if clips:
        gr.set_static_paths([samples])
    with gr.Blocks(title=ENGLISH.title, analytics_enabled=False) as page:
        layout = Layout(hardware(), clips)
        _Page(page, Answering(machine, visits, voices, layout))
    return page


class _Page:
    """The listeners of one page."""

    def __init__(self, page: gr.Blocks, answering: Answering) -> None:
        self.answering, self.visits, self.layout = answering, answering.visits, answering.layout
        at = self.layout
        self.wishes = [at.instruction, at.spoken, at.voice, at.speed, at.language]
        self._listen_to_asking()
        self._listen_to_wishes()
        self._listen_to_the_rest(page)

    def _listen_to_asking(self) -> None:
        at, answering = self.layout, self.answering
        outputs = [at.status, at.message, at.timing, at.thread, at.comparison, *at.cards.values()]
        recorded = [at.recording.stop_recording, at.recording.upload]
        gr.on(recorded, answering.recording, [at.key, at.recording, *self.wishes], outputs, **AT_ONCE)
        for button, clip in at.clips:
            chosen = (clip["audio"], clip.get("instruction") or "")
            button.click(lambda chosen=chosen: chosen, None, [at.recording, at.instruction], **AT_ONCE).then(
                answering.recording, [at.key, at.recording, *self.wishes], outputs, **AT_ONCE
            )
        sent = [at.message.submit, at.send.click]
        gr.on(sent, answering.message, [at.key, at.message, *self.wishes], outputs, **AT_ONCE)

        def again(key: str, *wishes: Any) -> Iterator[Updates]:
            yield from answering.again(key, None, wishes[0], *wishes)

        def again_about(event: gr.EventData, key: str, *wishes: Any) -> Iterator[Updates]:
            yield from answering.again(key, int(event.turn), str(event.instruction), *wishes)

        gr.on([at.ask.click, at.instruction.submit], again, [at.key, *self.wishes], outputs, **AT_ONCE)
        at.thread.submit(again_about, [at.key, *self.wishes], outputs, **AT_ONCE)
        switched = "(...given) => { earshot.listen(given[1]); return given; }"
        given = [at.key, at.hands_free, *self.wishes]
        at.hands_free.input(answering.listen, given, outputs, js=switched, **AT_ONCE)
        at.stop.click(self.stop, at.key, None, js="(key) => { earshot.hush(); return key; }", **DIRECT)
        at.talk.click(None, js="() => { earshot.talk(); }", **COMMON)

    def _listen_to_wishes(self) -> None:
        """What is changed while the microphone is open holds for the next turn."""
        at = self.layout

        def wish(key: str, *wishes: Any) -> None:
            if (visit := self.visits.find(key)) is not None:
                visit.wishes = Wishes(*wishes)

        for button, wording in at.presets:
            button.click(None, None, at.instruction, js=f"() => {json.dumps(wording)}", **COMMON)
        gr.on([one.change for one in self.wishes], wish, [at.key, *self.wishes], None, **DIRECT)

    def _listen_to_the_rest(self, page: gr.Blocks) -> None:
        at = self.layout
        shown = [*at.worded, at.status, at.timing, at.thread, at.comparison, *at.cards.values()]
        settled: dict[str, Any] = {"fn": None, "js": "() => { earshot.settle(); }"} | COMMON
        page.load(None, None, at.key, js="() => earshot.key", **COMMON)
        chosen = "() => [earshot.language(), earshot.key]"
        settling = page.load(self.greet, [at.language, at.key], shown, js=chosen, **AT_ONCE)
        settling.then(**settled).then(self.wait_for_models, at.language, at.status, **AT_ONCE)
        chosen = "(code, key) => [earshot.choose(code), key]"
        at.language.input(self.translate, [at.language, at.key], shown, js=chosen, **AT_ONCE).then(**settled)
        at.edit.click(self.edit, [at.key, at.language], [at.message, at.instruction, at.status], **DIRECT)
        at.add.click(self.add, [at.key, at.language], at.status, **DIRECT)
        emptied = [at.status, at.recording, at.timing, at.thread, at.comparison, *at.cards.values()]
        at.clear.click(
            self.clear, [at.key, at.language], emptied, js="(...given) => { earshot.hush(); return given; }", **DIRECT
        )
        for kind, button in at.exports.items():

            def export(key: str, language: str, kind: str = kind) -> Updates:
                return self.export(kind, key, TEXTS[language])

            button.click(export, [at.key, at.language], [at.download, at.status], **AT_ONCE).success(
                None, at.download, js="(file) => { if (file) document.querySelector('#download').click(); }", **COMMON
            )

    def stop(self, key: str) -> None:
        """Silence; whatever is under way says so itself."""
        if (visit := self.visits.find(key)) is not None:
            visit.editing = visit.adding = False
            visit.interrupt()

    def edit(self, key: str, language: str) -> Updates:
        """The last turn's words go back to where they were written; what is said next takes that turn's place."""
        at, texts, visit = self.layout, TEXTS[language], self.visits.of(key)
        if not visit.rounds:
            return {at.status: fragments.status(texts.nothing_to_edit, "problem")}
        visit.interrupt()
        visit.editing, visit.adding = True, False
        last = visit.rounds[-1]
        box = at.instruction if last.duration else at.message
        words = texts.editing_speech if last.duration else texts.editing
        return {box: last.text or "", at.status: fragments.status(words)}

    def add(self, key: str, language: str) -> Updates:
        """What is said next joins the last turn's clips, and both lanes answer them together."""
        at, texts, visit = self.layout, TEXTS[language], self.visits.of(key)
        if not visit.rounds or not visit.rounds[-1].said.clips:
            return {at.status: fragments.status(texts.nothing_to_add, "problem")}
        visit.interrupt()
        visit.editing = visit.adding = True
        return {at.status: fragments.status(texts.adding)}

    def clear(self, key: str, language: str) -> Updates:
        """A new conversation: nothing that was said is left, here or in the lanes."""
        at, texts, visit = self.layout, TEXTS[language], self.visits.of(key)
        visit.interrupt()
        visit.clear()
        return self.answering.finished(visit, texts) | {
            at.status: fragments.status(texts.cleared),
            at.recording: None,
        }

    def greet(self, language: str, key: str) -> Updates:
        """The page in the visitor's language; English is how it comes, and may be in use by now."""
        if language == ENGLISH.code:
            return {self.layout.language: gr.skip()}
        return self.translate(language, key)

    def translate(self, language: str, key: str) -> Updates:
        """The whole page in a language, with what this visitor has been answered so far."""
        at, texts = self.layout, TEXTS[language]
        words = at.in_language(texts)
        words[at.language] = gr.update(value=language, label=texts.language)
        return words | {at.status: fragments.status(texts.ready)} | self.answering.finished(self.visits.of(key), texts)

    def wait_for_models(self, language: str) -> Iterator[Updates]:
        """Say that the models are loading until they are there."""
        at, texts, machine = self.layout, TEXTS[language], self.answering.machine
        if machine.loading is None:
            yield {at.status: gr.skip()}
            return
        while machine.loading is not None:
            yield {at.status: fragments.status(self.answering.waiting(0, texts), "busy")}
            machine.wait(1.0)
        yield {at.status: fragments.status(texts.ready)}

    def export(self, kind: str, key: str, texts: Texts) -> Updates:
        """The session as a file to download, which Gradio serves from the visitors' folder (`ui.serving`)."""
        at, visit = self.layout, self.visits.find(key)
        if visit is None or not visit.rounds:
            return {at.download: None, at.status: fragments.status(texts.nothing_to_export, "problem")}
        with tempfile.TemporaryDirectory(prefix="earshot-") as folder:
            file = write_export(kind, visit.rounds, self.answering.measured_on, Path(folder))
            return {at.download: at.download.move_resource_to_block_cache(file), at.status: gr.skip()}
