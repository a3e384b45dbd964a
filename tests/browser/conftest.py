"""A browser with a WAV file for a microphone, and the page served on scripted or on the real lanes."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from assistant.files import SAMPLES
from assistant.lanes.anticipation import Anticipation, Ready
from assistant.lanes.dialogue import Dialogue, Said, Turn
from assistant.lanes.lane import Chunks, Heard, Lane, Reply, TextDelta
from assistant.latency import Latency, StageClock
from assistant.model.prompt import Message
from assistant.sound.audio import SAMPLE_RATE, AudioError, load_utterance
from assistant.voice.tts import SpeechUnavailable, Voice, load_voice
from ui.layout import read_samples
from ui.machine import Machine
from ui.serving import Address, launch
from ui.visit import Voices

CHROMIUM = Path(os.environ.get("EARSHOT_CHROMIUM", "/usr/bin/chromium"))
QUIET = ["no-sandbox", "disable-gpu", "disable-background-networking", "disable-component-update", "disable-sync"]
WAIT = 15_000  # milliseconds a scripted page may take; the machine that runs the tests may be busy
REMOTE = "earshot.test"  # a host name that leads here and that no browser takes for this machine

expect.set_options(timeout=WAIT)


PAUSES = {"slowly": 0.1, "a moment": 0.2}  # seconds for each piece of such a reply


class ScriptedLane(Lane):
    """Answers at once with words that only its own utterance and instruction can have led to.

    The instruction "slowly" streams for half a minute, "fail" raises, "markup" answers in HTML, "deaf" makes the
    end-to-end lane hear nothing, "mishear" makes it hear another word, with a confidence, and one that begins with
    "a moment," takes a moment.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.started = threading.Event()
        self.closed = threading.Event()
        self.early: list[bool] = []  # for each answer, whether it was begun early

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        """Hear nothing, early."""
        if self.name == "cascade":
            return super().anticipate(turn, dialogue)
        return Anticipation(turn, threading.Lock(), lambda _: Ready([], None, StageClock(torch.device("cpu"))))

    def answer(
        self,
        turn: Turn,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """Stream the script; a dialogue is remembered as far as its number of turns."""
        instruction = turn.text or None
        self.early.append(early is not None and early.take(turn) is not None)
        self.closed.clear()
        self.started.set()
        dialogue = dialogue or Dialogue()
        past = [one.reply for one in dialogue.exchanges]
        exchange = Said(Message("user", [turn.text]), None)
        dialogue.exchanges.append(exchange)
        try:
            heard = f"{turn.duration:.2f} seconds" if turn.clips else None
            if instruction == "mishear" and self.name == "end_to_end":
                yield Heard((heard or "").rstrip("s"), (0.9, 0.5))
            else:
                yield Heard(heard)
            if instruction == "deaf" and self.name == "end_to_end":
                raise AudioError("No words were heard.")
            if instruction == "fail":
                raise RuntimeError("scripted failure")
            text = f"{self.name} was told {instruction} about {heard}"
            if instruction == "history":
                text = " | ".join(past) or "nothing"
            if instruction == "markup":
                text = "<b>bold</b><script>document.title = 'changed'</script>"
            if instruction == "sentences":
                text = "The first sentence is here. The second one follows it. A third one ends it all. "
            for index in range(300 if instruction == "slowly" else 1):
                if stop and stop.is_set():
                    break
                exchange.reply += text if index == 0 else "."
                yield TextDelta(text if index == 0 else ".")
                time.sleep(PAUSES.get((instruction or "").split(",")[0], 0))
            cascade = self.name == "cascade"
            yield Reply(
                exchange.reply,
                heard,
                Latency(
                    features=10,
                    encode=200,
                    connect=None if cascade else 40,
                    transcribe=800 if cascade else None,
                    prefill=100,
                    first_token=1120 if cascade else 360,
                    total=2000 if cascade else 1250,
                    reply_tokens=20,
                    endpoint=turn.endpoint,
                ),
            )
        finally:
            self.closed.set()


class ScriptedVoice(Voice):
    """Hums for a second, whatever it is to say."""

    def speak(self, text: str) -> Iterator[np.ndarray]:
        """One quiet second."""
        if "unspeakable" in text:
            raise SpeechUnavailable("This voice does not say that.")
        if text.strip():
            yield hum(1.0, self.sample_rate)


def hums(name: str, speed: float) -> Voice | None:
    """Voices that hum."""
    return None if name == "silent" else ScriptedVoice(speed)


def silence(name: str, speed: float) -> Voice | None:
    """No voice at all."""
    return None


class Server:
    """The page on 127.0.0.1; without lanes the models are still loading."""

    def __init__(self, lanes: dict[str, Lane] | None, voices: Voices, samples: Path, port: int = 0) -> None:
        self.lanes = lanes or {}
        self.machine = Machine(lanes)
        self.port = port or free_port()
        self.page = launch(self.machine, voices, samples, Address(port=self.port))
        self.url = f"http://127.0.0.1:{self.port}/"
        self.clip = samples / "two.flac"
        self.remote_url = f"http://{REMOTE}:{self.port}/"

    def close(self) -> None:
        """Stop serving."""
        self.page.close(verbose=False)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def hum(duration: float, rate: int = SAMPLE_RATE) -> np.ndarray:
    """Float32 samples of a rising and falling tone: audible, and nothing else."""
    time_axis = np.arange(int(duration * rate)) / rate
    return (0.2 * np.sin(2 * np.pi * 220 * time_axis) * np.sin(2 * np.pi * 2 * time_axis) ** 2).astype(np.float32)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WAV file with the shortest bundled clip of three seconds and more: what the fake microphone hears."""
    found = [load_utterance(entry["audio"]) for entry in read_samples(SAMPLES)]
    long_enough = [utterance for utterance in found if utterance.duration >= 3]
    if not long_enough:
        pytest.fail("assets/samples holds no clip of three seconds or more; the fake microphone has nothing to hear.")
    shortest = min(long_enough, key=lambda utterance: utterance.duration)
    path = tmp_path_factory.mktemp("microphone") / "speech.wav"
    soundfile.write(path, shortest.resampled(), SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture(scope="session")
def chromium() -> Iterator[Callable[..., Browser]]:
    """Starts a headless Chromium with the given extra switches."""
    if not CHROMIUM.exists():
        pytest.fail(f"{CHROMIUM} is missing; the page is tested in a real browser: apt-get install chromium")
    with sync_playwright() as playwright:

        def start(*switches: str) -> Browser:
            arguments = [f"--{switch}" for switch in (*QUIET, "no-first-run", *switches)]
            return playwright.chromium.launch(executable_path=str(CHROMIUM), args=arguments)

        yield start


@pytest.fixture(scope="session")
def browser(chromium: Callable[..., Browser], clip: Path) -> Iterator[Browser]:
    """A browser whose microphone plays `clip` once and whose user allows it."""
    browser = chromium(
        "use-fake-device-for-media-stream",
        "use-fake-ui-for-media-stream",
        f"use-file-for-fake-audio-capture={clip}%noloop",
        f"host-resolver-rules=MAP {REMOTE} 127.0.0.1",
    )
    yield browser
    browser.close()


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like assets/samples with two clips of known length."""
    folder = tmp_path_factory.mktemp("samples")
    soundfile.write(folder / "two.flac", hum(2.0), SAMPLE_RATE)
    soundfile.write(folder / "four.flac", hum(4.0), SAMPLE_RATE)
    (folder / "manifest.jsonl").write_text(
        '{"audio": "two.flac", "text": "hum", "title": "Two seconds", "licence": "CC0-1.0", "source": "made here"}\n'
        '{"audio": "four.flac", "text": "hum", "title": "Four seconds", "instruction": "Repeat it.", '
        '"licence": "CC0-1.0", "source": "made here"}\n',
        "utf-8",
    )
    return folder


@pytest.fixture(scope="session")
def server(samples: Path) -> Iterator[Server]:
    """The page on scripted lanes."""
    server = Server({name: ScriptedLane(name) for name in ("end_to_end", "cascade")}, hums, samples)
    yield server
    server.close()


@pytest.fixture(scope="session")
def real_server() -> Iterator[Server]:
    """The page as `launch.py` serves it: the shipped models, the packaged voice, the bundled clips."""
    from assistant.lanes.loading import load_lanes

    server = Server(load_lanes(), load_voice, SAMPLES)
    yield server
    server.close()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens the page as a new visitor, with a context of their own; arguments go to the browser context."""
    contexts: list[BrowserContext] = []

    def visit(url: str, script: str | None = None, **options: object) -> Page:
        context = browser.new_context(**options)  # type: ignore[arg-type]
        contexts.append(context)
        context.set_default_timeout(WAIT)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.goto(url)
        page.wait_for_selector("#lane-cascade .lane")
        return page

    yield visit
    for context in contexts:
        context.close()
