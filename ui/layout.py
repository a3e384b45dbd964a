"""What stands where on the page: its components, and their words in any language. What they do is in `ui/page.py`."""

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.files import ASSETS, read_json_lines
from assistant.lanes.names import LANES
from assistant.voice.tts import VOICES
from ui import fragments
from ui.comparison import comparison
from ui.lane_card import cards
from ui.texts import ENGLISH, TEXTS, Texts
from ui.thread import CLICKS, thread

SPEEDS = (0.8, 1.0, 1.25, 1.5)  # few, so that visitors share voices

Updates = dict[Any, Any]  # component -> its new value
Words = Callable[[Texts], dict[str, Any]]  # a component's properties in a language


class Layout:
    """The components, laid out within the `gr.Blocks` that is being built, their words in English at first.

    Parameters
    ----------
    measured_on: the machine in words.
    clips: entries of a manifest, from `read_samples`.
    """

    def __init__(self, measured_on: str, clips: Sequence[dict[str, str]]) -> None:
        self._words: dict[Any, Words] = {}
        self.key = gr.Textbox("", visible="hidden", elem_id="visit")
        with gr.Row(elem_id="top"):
            self._add(gr.HTML, lambda texts: {"value": fragments.header(texts)}, elem_id="header", scale=4)
            self.language = self._add(
                gr.Radio,
                lambda texts: {"label": texts.language},
                choices=[(texts.own_name, code) for code, texts in TEXTS.items()],
                value=ENGLISH.code,
                elem_id="language",
                container=False,
                min_width=160,
            )
        with gr.Row(elem_id="ask-panel"):
            with gr.Column(min_width=280):
                self._talking()
            with gr.Column(min_width=280):
                self._task(clips)
        with gr.Row(elem_id="lanes"):
            empty = cards(None, ENGLISH)
            self.cards = {name: gr.HTML(empty[name], elem_id=f"lane-{name}") for name in LANES}
        with gr.Row(elem_id="thread-actions"):
            self.message = self._add(
                gr.Textbox,
                lambda texts: {"label": texts.message, "placeholder": texts.message_hint},
                lines=1,
                max_lines=4,
                max_length=2000,
                elem_id="message",
                scale=6,
                min_width=200,
            )
            self.send = self._add(gr.Button, lambda texts: {"value": texts.send}, elem_id="send", min_width=80)
            self.edit = self._add(gr.Button, lambda texts: {"value": texts.edit}, elem_id="edit", min_width=120)
            self.add = self._add(gr.Button, lambda texts: {"value": texts.add}, elem_id="add", min_width=120)
            self.clear = self._add(gr.Button, lambda texts: {"value": texts.clear}, elem_id="clear", min_width=120)
        self.thread = gr.HTML(thread([], "", [], ENGLISH), elem_id="thread", js_on_load=CLICKS)
        self.timing = gr.HTML(fragments.timing(dict.fromkeys(LANES), ENGLISH, measured_on), elem_id="timing")
        with gr.Row(elem_id="choices"):
            self._speaking()
        self.comparison = gr.HTML(comparison([], ENGLISH), elem_id="comparison")
        self._add(gr.HTML, lambda texts: {"value": fragments.caption(texts.export)})
        with gr.Row(elem_classes="chips", elem_id="export"):
            self.exports = {
                "json": self._add(gr.Button, lambda texts: {"value": texts.export_json}, size="sm"),
                "csv": self._add(gr.Button, lambda texts: {"value": texts.export_csv}, size="sm"),
                "zip": self._add(gr.Button, lambda texts: {"value": texts.export_zip}, size="sm"),
            }
            self.download = gr.DownloadButton("", visible="hidden", elem_id="download")

    def in_language(self, texts: Texts) -> Updates:
        """Every component whose words stay the same while the page is used, with those words."""
        return {component: gr.update(**words(texts)) for component, words in self._words.items()}

    @property
    def worded(self) -> list[Any]:
        """The components that `in_language` updates."""
        return list(self._words)

    def _add(self, component: Callable[..., Any], words: Words, **options: Any) -> Any:
        made = component(**words(ENGLISH), **options)
        self._words[made] = words
        return made

    def _talking(self) -> None:
        with gr.Row(elem_id="talking"):
            self.talk = self._add(
                gr.Button, lambda texts: {"value": texts.talk}, variant="primary", elem_id="talk", scale=3
            )
            self.stop = self._add(gr.Button, lambda texts: {"value": texts.stop}, elem_id="stop", min_width=80)
        with gr.Row(elem_id="live"):
            self.hands_free = self._add(
                gr.Checkbox,
                lambda texts: {"label": texts.hands_free},
                elem_id="hands-free",
                container=False,
                min_width=120,
            )
            self.barge_in = self._add(
                gr.Checkbox,
                lambda texts: {"label": texts.barge_in},
                elem_id="barge-in",
                interactive=True,
                container=False,
                min_width=160,
            )
        self._add(gr.HTML, lambda texts: {"value": fragments.ear(texts)}, elem_id="ear")
        self._add(gr.HTML, lambda texts: {"value": fragments.note(texts.keys)}, elem_id="keys")
        self.status = gr.HTML(fragments.status(ENGLISH.ready), elem_id="status")
        self.recording = self._add(
            gr.Audio,
            lambda texts: {"label": texts.recording},
            sources=["microphone", "upload"],
            type="filepath",
            elem_id="recording",
            editable=False,
            buttons=[],
        )
        self._add(gr.HTML, lambda texts: {"value": fragments.microphone_notes(texts)}, elem_id="microphone-notes")

    def _speaking(self) -> None:
        self.spoken = self._add(
            gr.Radio,
            lambda texts: {
                "label": texts.spoken,
                "choices": [(texts.lanes[lane], lane) for lane in LANES],
            },
            value=LANES[0],
            elem_id="spoken-choice",
        )
        self.voice = self._add(
            gr.Radio,
            lambda texts: {"label": texts.voice, "choices": [(texts.voices[name], name) for name in VOICES]},
            value=VOICES[0],
            elem_id="voice",
        )
        self.speed = self._add(
            gr.Radio,
            lambda texts: {"label": texts.speed},
            choices=[(f"{speed:g} ×", speed) for speed in SPEEDS],
            value=1.0,
            elem_id="speed",
        )
        self._add(gr.HTML, lambda texts: {"value": fragments.spoken(texts)}, elem_id="speech")

    def _task(self, clips: Sequence[dict[str, str]]) -> None:
        self.instruction = self._add(
            gr.Textbox,
            lambda texts: {"label": texts.instruction, "placeholder": texts.instruction_hint},
            lines=2,
            max_lines=4,
            max_length=2000,
            elem_id="instruction",
        )
        self._add(gr.HTML, lambda texts: {"value": fragments.caption(texts.presets)})
        with gr.Row(elem_classes="chips", elem_id="presets"):
            self.presets = [(self._chip(title), wording) for title, wording in read_presets()]
        self.ask = self._add(gr.Button, lambda texts: {"value": texts.ask}, elem_id="ask")
        self._add(gr.HTML, lambda texts: {"value": fragments.caption(texts.samples)}, visible=bool(clips))
        with gr.Row(elem_classes="chips", elem_id="samples"):
            self.clips = [(self._chip(clip["title"]), clip) for clip in clips]

    def _chip(self, title: str) -> Any:
        return self._add(gr.Button, lambda texts: {"value": texts.name(title)}, size="sm")


def read_presets(path: Path = ASSETS / "presets" / "tasks.toml") -> list[tuple[str, str]]:
    """(title, instruction) of each task preset."""
    return [(entry["title"], entry["instruction"]) for entry in tomllib.loads(path.read_text("utf-8"))["preset"]]


def read_samples(folder: Path) -> list[dict[str, str]]:
    """The entries of a folder's `manifest.jsonl`, `audio` as an absolute path; none when there is no manifest."""
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        return []
    return [entry | {"audio": str((folder / entry["audio"]).resolve())} for entry in read_json_lines(manifest)]
