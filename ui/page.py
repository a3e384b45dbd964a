"""The Gradio page: what stands where, and what happens when someone speaks. Everything a visitor says stays theirs."""

import json
import logging
import sys
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import gradio as gr

from assistant.audio import MAX_FILE_SIZE, AudioError, Utterance, load_utterance
from assistant.lanes import Heard, Lane, Reply, TextDelta, precision_in_words
from assistant.latency import Latency, hardware
from assistant.tts import SpeechUnavailable, Voice
from ui import fragments, texts
from ui.latency_bars import latency_bars

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LOG = logging.getLogger("earshot.page")
ASSETS = Path(__file__).resolve().parent.parent / "assets"
ORDER = ("end_to_end", "cascade")  # which lane answers first
KEEP = 3600  # seconds after which a visitor's recordings are deleted from this machine
REFRESH = 0.05  # seconds between two looks of a growing reply
POLL = 0.1  # seconds between two looks at whether the machine is free

Updates = dict[Any, Any]  # component -> its new value


def launch_options() -> dict[str, Any]:
    """What `Blocks.launch` must be given for this page: style, script, and nothing that calls home or is recorded."""
    fonts = [gr.themes.Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "sans-serif")]
    monospace = [gr.themes.Font(name) for name in ("ui-monospace", "Menlo", "monospace")]
    style = (ASSETS / "page.css").read_text("utf-8")
    return {
        "theme": gr.themes.Base(
            primary_hue="blue", neutral_hue="slate", radius_size="lg", font=fonts, font_mono=monospace
        ),
        "head": f"<style>{style}</style>{fragments.MICROPHONE_SCRIPT}",
        "footer_links": [],
        "run_history": False,  # it would keep what was said in the browser's storage
        "share": False,
        "max_file_size": MAX_FILE_SIZE,
        "ssr_mode": False,
    }


def build_page(lanes: dict[str, Lane], voice: Voice | None, samples: Path) -> gr.Blocks:
    """The page on the given lanes.

    Parameters
    ----------
    lanes: "end_to_end" and "cascade".
    voice: speaks replies; None leaves them written.
    samples: folder with `manifest.jsonl` (audio, text, title, optional instruction) and the clips it names.
    """
    machine = threading.Lock()  # held while a lane or the voice works: a cancelled step ends later than its event
    measured_on = f"{hardware()}; {precision_in_words(lanes)}"
    clips = read_samples(samples)
    if clips:
        gr.set_static_paths([samples])

    with gr.Blocks(title=texts.TITLE, analytics_enabled=False, delete_cache=(KEEP, KEEP)) as page:
        ticket = gr.State(0)  # counts requests; a new one cancels the running one
        replies = gr.State({})  # lane -> text of this visitor's last finished replies, for the voice
        unspoken = gr.State(False)  # whether they are new: a bad recording leaves the old ones, unrepeated
        gr.HTML(f"<header><h1>{texts.TITLE}</h1><p>{texts.TAGLINE}</p></header>", elem_id="header")
        with gr.Row(elem_id="ask-panel"):
            with gr.Column(min_width=280):
                recording = gr.Audio(
                    sources=["microphone", "upload"],
                    type="filepath",
                    label=texts.RECORDING,
                    elem_id="recording",
                    editable=False,
                    buttons=[],
                )
                gr.HTML(fragments.microphone_notes(), elem_id="microphone-notes", js_on_load=fragments.PORT_SCRIPT)
                gr.HTML(fragments.caption(texts.SAMPLES), visible=bool(clips))
                with gr.Row(elem_classes="chips", elem_id="samples"):
                    chips = [(gr.Button(clip["title"], size="sm"), clip) for clip in clips]
            with gr.Column(min_width=280):
                instruction = gr.Textbox(
                    label=texts.INSTRUCTION,
                    placeholder=texts.INSTRUCTION_HINT,
                    lines=2,
                    max_lines=4,
                    max_length=2000,
                    elem_id="instruction",
                )
                gr.HTML(fragments.caption(texts.PRESETS))
                with gr.Row(elem_classes="chips", elem_id="presets"):
                    presets = [(gr.Button(title, size="sm"), wording) for title, wording in read_presets()]
                with gr.Row(elem_id="actions"):
                    ask = gr.Button(texts.ASK, variant="primary", elem_id="ask", scale=3)
                    stop = gr.Button(texts.STOP, elem_id="stop", interactive=False, scale=1)
                status = gr.HTML(fragments.status(texts.READY), elem_id="status")
        with gr.Row(elem_id="lanes"):
            cards = {name: gr.HTML(fragments.card(name), elem_id=f"lane-{name}") for name in ORDER}
        timing = gr.HTML(latency_bars(dict.fromkeys(ORDER), measured_on), elem_id="timing")
        with gr.Row(elem_id="spoken", equal_height=True):
            spoken = gr.Radio(texts.SPOKEN_CHOICES, value="end_to_end", label=texts.SPOKEN, elem_id="spoken-choice")
            speech = gr.HTML(fragments.note(texts.SPOKEN_IDLE), elem_id="speech")

        def request(count: int) -> Updates:
            busy = fragments.status(texts.WAITING, "busy")
            return {ticket: count + 1, unspoken: False, status: busy, stop: gr.update(interactive=True)}

        def answer(path: str | None, wording: str | None) -> Iterator[Updates]:
            latencies: dict[str, Latency | None] = dict.fromkeys(ORDER)
            finished: dict[str, str] = {}
            message, kind = texts.DONE, "done"
            try:
                if path is None:
                    raise AudioError(texts.NO_RECORDING)
                utterance = load_utterance(path)
                yield {replies: {}, speech: fragments.note(texts.SPOKEN_IDLE)} | {
                    cards[name]: fragments.card(name) for name in ORDER
                }
                while not machine.acquire(timeout=POLL):
                    yield {status: fragments.status(texts.WAITING, "busy")}
                try:
                    yield {timing: latency_bars(latencies, measured_on)}
                    for name in ORDER:
                        yield {
                            status: fragments.status(texts.ANSWERING[name], "busy"),
                            cards[name]: fragments.card(name, live=True),
                        }
                        with closing(_progress(lanes[name], utterance, wording)) as progress:
                            for heard, text, latency in progress:
                                if latency is None:
                                    yield {cards[name]: fragments.card(name, heard, text, live=True)}
                        latencies[name], finished[name] = latency, text if latency else ""
                        yield {
                            cards[name]: fragments.card(name, heard, text or texts.EMPTY_REPLY),
                            timing: latency_bars(latencies, measured_on),
                        }
                finally:
                    machine.release()
                yield {replies: finished, unspoken: True}
            except AudioError as error:
                message, kind = str(error), "problem"
            except Exception:
                LOG.exception("The page could not answer")
                message, kind = texts.UNEXPECTED, "problem"
            yield {status: fragments.status(message, kind), stop: gr.update(interactive=False)}

        def speak(said: dict[str, str], choice: str, wanted: bool = True) -> Iterator[Updates]:
            text = said.get(choice, "").strip()
            if not wanted:
                yield {speech: gr.skip()}
                return
            if choice == "off" or not text:
                yield {speech: fragments.note(texts.SPOKEN_OFF if choice == "off" else texts.SPOKEN_IDLE)}
                return
            yield {speech: fragments.note(texts.SPEAKING)}
            while not machine.acquire(timeout=POLL):
                yield {speech: fragments.note(texts.SPEAKING)}
            try:
                player = fragments.player(voice, text)
            except SpeechUnavailable as error:
                player = fragments.note(str(error) or texts.NO_VOICE)
            except Exception:
                LOG.exception("The page could not speak")
                player = fragments.note(texts.UNEXPECTED)
            finally:
                machine.release()
            yield {speech: player}

        outputs = [status, stop, replies, unspoken, speech, timing, *cards.values()]
        common: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
        working: dict[str, Any] = common | {"concurrency_id": "machine", "concurrency_limit": 1}
        answering = ticket.change(answer, [recording, instruction], outputs, trigger_mode="multiple", **working)
        speaking = [
            answering.success(speak, [replies, spoken, unspoken], speech, **working),
            spoken.change(speak, [replies, spoken], speech, trigger_mode="always_last", **working),
        ]
        # Never kept waiting, yet queued: only a queued listener makes the browser see that the ticket changed.
        at_once: dict[str, Any] = common | {"concurrency_limit": None}
        running = [answering, *speaking]

        def cancel_first(triggers: list[Any]) -> None:
            """Listeners run in the order of their definition: what runs must end before what follows begins."""
            gr.on(triggers, None, cancels=running, **common)

        asked = [recording.stop_recording, recording.upload, ask.click, instruction.submit]
        cancel_first(asked)
        gr.on(asked, request, ticket, [ticket, unspoken, status, stop], **at_once)
        for button, wording in presets:
            button.click(None, None, instruction, js=f"() => {json.dumps(wording)}", **common)
        for button, clip in chips:

            def pick(count: int, clip: dict[str, str] = clip) -> Updates:
                return request(count) | {recording: clip["audio"], instruction: clip.get("instruction") or ""}

            cancel_first([button.click])
            button.click(pick, ticket, [ticket, unspoken, status, stop, recording, instruction], **at_once)
        cancel_first([stop.click])
        stopped = {status: fragments.status(texts.STOPPED), stop: gr.update(interactive=False)}
        stop.click(lambda: stopped, None, [status, stop], queue=False, **common)
    return page


def _progress(
    lane: Lane, utterance: Utterance, wording: str | None
) -> Generator[tuple[str | None, str, Latency | None], None, None]:
    """What a lane has heard and said so far, and its latency with the last; what it cannot answer, it says."""
    heard: str | None = ""
    text, shown = "", 0.0
    stream = lane.answer(utterance, (wording or "").strip() or None)
    try:
        for chunk in stream:
            if isinstance(chunk, Reply):
                yield heard, chunk.text, chunk.latency
                return
            if isinstance(chunk, Heard):
                heard = chunk.text
            elif isinstance(chunk, TextDelta):
                text += chunk.text
                if time.monotonic() - shown < REFRESH:
                    continue  # showing every token would slow down the lane that is being timed
                shown = time.monotonic()
            yield heard, text, None
    except AudioError as error:
        yield heard, str(error), None
    finally:
        if isinstance(stream, Generator):
            stream.close()


def read_presets(path: Path = ASSETS / "presets" / "tasks.toml") -> list[tuple[str, str]]:
    """(title, instruction) of each task preset."""
    return [(entry["title"], entry["instruction"]) for entry in tomllib.loads(path.read_text("utf-8"))["preset"]]


def read_samples(folder: Path) -> list[dict[str, str]]:
    """The entries of a folder's `manifest.jsonl`, `audio` as an absolute path; none when there is no manifest."""
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        return []
    entries = [json.loads(line) for line in manifest.read_text("utf-8").splitlines() if line.strip()]
    return [entry | {"audio": str((folder / entry["audio"]).resolve())} for entry in entries]
