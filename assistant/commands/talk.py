"""`launch.py talk`: speak to both lanes at this machine's own microphone, in a terminal, without a display."""

import contextlib
import queue
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.conversation import Conversation
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Heard, Lane, Reply, TextDelta
from assistant.lanes.listening import Listener
from assistant.lanes.names import typed
from assistant.latency import in_words
from assistant.limits import MAX_DURATION
from assistant.sound.audio import SAMPLE_RATE, AudioError, Utterance, prepare
from assistant.sound.microphone import Microphone, level
from assistant.sound.sound_devices import Device, SoundDeviceError
from assistant.voice.loudspeaker import Loudspeaker
from assistant.voice.spoken_reply import Sound, Unspoken, speak
from assistant.voice.tts import Voice

ECHO = 0.3  # seconds after the last sound in which the microphone stays closed: rooms and loudspeakers lag behind
RETRY = 2.0  # seconds between two looks for a microphone
HANDS_FREE = "Speak whenever you like. Enter stops a reply, a written line is answered too, Ctrl-C ends."
PUSH_TO_TALK = "Press Enter, speak, press Enter again. A written line is answered too, Ctrl-C ends."


@dataclass(frozen=True)
class TalkOptions:
    """How to talk; `barge_in` keeps the microphone open while it speaks, for people with headphones."""

    instruction: str = ""
    push_to_talk: bool = False
    barge_in: bool = False
    device: Device = None
    output_device: Device = None


class Terminal:
    """Lines on stdout, from several threads; a levels meter on stderr where somebody can see it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meter = sys.stderr.isatty()

    def write(self, text: str) -> None:
        """Text as it is; lines must bring their end."""
        with self._lock:
            if self._meter:
                print("\r\033[K", end="", file=sys.stderr, flush=True)
            print(text, end="", flush=True)

    def meter(self, samples: np.ndarray, listening: bool) -> None:
        """Show how loud it is just now."""
        if self._meter and len(samples):
            bar = "█" * round((level(samples) + 60) / 3)
            with self._lock:
                print(f"\r\033[K{'listening' if listening else 'closed':9} {bar}", end="", file=sys.stderr, flush=True)


def keyboard() -> "queue.SimpleQueue[str | None]":
    """Lines typed from now on, without their end; None when the input has ended."""
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        with contextlib.suppress(ValueError, OSError):  # the input was closed
            for line in sys.stdin:
                lines.put(line.strip())
        lines.put(None)

    threading.Thread(target=read, name="keyboard", daemon=True).start()
    return lines


class Talk:
    """One person at one machine: the first lane hears early and is spoken, the other ones follow in writing."""

    def __init__(
        self,
        lanes: Mapping[str, Lane],
        voice: Voice | None,
        options: TalkOptions,
        typed: "queue.SimpleQueue[str | None] | None" = None,
    ) -> None:
        self._lanes, self._voice, self._options = lanes, voice, options
        self._typed = typed or keyboard()
        terminal = Terminal()
        self._write, self._meter = terminal.write, terminal.meter
        self._first = next(iter(lanes))
        self._conversation = Conversation(lanes)
        self._listener = Listener(self._anticipate, self._interrupt)
        self._answering: threading.Thread | None = None
        self._stop = threading.Event()
        self._loudspeaker: Loudspeaker | None = None
        self._microphone: Microphone | None = None
        self._deaf_until = 0.0  # the microphone is closed before, for it would hear the reply
        self._retry = 0.0  # when to look for a microphone again
        self._problem = ""  # the last one that was told
        self._recording: list[np.ndarray] | None = None  # push-to-talk, while Enter is "down"
        self._ended = False  # nothing more can be typed

    def run(self) -> None:
        """Listen and answer until Ctrl-C, or until nothing can come any more."""
        self._write((PUSH_TO_TALK if self._options.push_to_talk else HANDS_FREE) + "\n")
        try:
            while not (self._ended and (self._options.push_to_talk or self._microphone is None)) or self._busy():
                self._step()
        finally:
            self._interrupt()
            for device in (self._microphone, self._loudspeaker):
                if device is not None:
                    device.close()

    def _step(self) -> None:
        with contextlib.suppress(queue.Empty):
            self._take_line(self._typed.get_nowait())
        samples = self._listen()
        speaking = self._loudspeaker is not None and self._loudspeaker.playing
        if speaking:
            self._deaf_until = time.monotonic() + ECHO
        open_ = self._options.barge_in or time.monotonic() >= self._deaf_until
        self._meter(samples, open_ and (self._recording is not None or not self._options.push_to_talk))
        if self._recording is not None:
            self._recording.append(samples)
            if sum(map(len, self._recording)) > (MAX_DURATION - 1) * SAMPLE_RATE:
                self._take_line("")
        elif not self._options.push_to_talk and open_:
            for overheard in self._listener.feed(samples):
                self._begin(self._turn(overheard.utterance), overheard.early)
        elif not open_:
            self._listener.reset()  # it must not hear itself, not even the end of it

    def _listen(self) -> np.ndarray:
        """What the microphone heard; its problems are told once, and it is looked for again and again."""
        try:
            if self._microphone is None:
                if time.monotonic() < self._retry:
                    time.sleep(0.05)
                    return np.zeros(0, np.float32)
                self._microphone = Microphone(self._options.device, refresh=bool(self._problem))
                if self._problem:
                    self._write("The microphone is there.\n")
                self._problem = ""
            return self._microphone.read()
        except SoundDeviceError as error:
            if self._microphone is not None:
                with contextlib.suppress(Exception):  # a device that is gone may refuse even to be closed
                    self._microphone.close()
                self._microphone = None
            self._retry = time.monotonic() + RETRY
            if str(error) != self._problem:
                self._problem = str(error)
                self._write(f"{error} You can still write.\n")
            return np.zeros(0, np.float32)

    def _take_line(self, line: str | None) -> None:
        if line is None:
            self._ended = True
        elif line:
            self._begin(Turn(text=line))
        elif not self._options.push_to_talk:
            self._interrupt()
        elif self._recording is None:
            self._interrupt()
            self._recording = []
            self._write("Recording; Enter ends it.\n")
        else:
            samples, self._recording = np.concatenate([*self._recording, np.zeros(0, np.float32)]), None
            try:
                self._begin(self._turn(prepare(samples, SAMPLE_RATE)))
            except AudioError as error:
                self._write(f"{error}\n")

    def _turn(self, utterance: Utterance) -> Turn:
        return Turn.spoken(utterance, self._options.instruction)

    def _anticipate(self, utterance: Utterance) -> Anticipation:
        return self._conversation.anticipate(self._first, self._turn(utterance))

    def _busy(self) -> bool:
        answering = self._answering is not None and self._answering.is_alive()
        return answering or (self._loudspeaker is not None and self._loudspeaker.playing)

    def _interrupt(self) -> None:
        """Be silent at once; what was said stays in the conversation, no more."""
        self._listener.drop()
        self._stop.set()
        busy, speaking = self._busy(), self._loudspeaker is not None and self._loudspeaker.playing
        said = self._loudspeaker.stop() if self._loudspeaker is not None else ""
        if self._answering is not None:
            self._answering.join()
            self._answering = None
        if speaking:
            self._conversation.cut(self._first, said)
        if busy:
            self._write("\n(interrupted)\n")

    def _begin(self, turn: Turn, early: Anticipation | None = None) -> None:
        self._interrupt()
        stop = self._stop = threading.Event()
        self._answering = threading.Thread(target=self._answer, args=(turn, early, stop), name="answer", daemon=True)
        self._answering.start()

    def _answer(self, turn: Turn, early: Anticipation | None, stop: threading.Event) -> None:
        try:
            self._conversation.say(turn)
            for name in self._lanes:
                if stop.is_set():
                    return
                self._write(f"\n{typed(name)}\n")
                try:
                    self._answer_on(name, early if name == self._first else None, stop)
                except AudioError as error:
                    self._write(f"  {error}\n")
        except AudioError as error:
            self._write(f"{error}\n")
        except Exception as error:  # whatever it was, the next thing said deserves an answer
            self._write(f"\nThat went wrong ({type(error).__name__}: {error}). Please say it again.\n")

    def _answer_on(self, name: str, early: Anticipation | None, stop: threading.Event) -> None:
        loudspeaker = self._open_loudspeaker() if name == self._first else None
        chunks = self._conversation.answer(name, early, stop)
        voice = self._voice if loudspeaker else None
        for chunk in speak(chunks, voice, stop, loudspeaker.latency if loudspeaker else 0.0):
            if isinstance(chunk, Heard) and chunk.text is not None:
                self._write(f"  heard: {chunk.text}\n")
            elif isinstance(chunk, TextDelta):
                self._write(chunk.text)
            elif isinstance(chunk, Sound) and loudspeaker and not stop.is_set():
                loudspeaker.play(chunk)
            elif isinstance(chunk, Unspoken):
                self._write(f"\n  {chunk.reason}\n")
            elif isinstance(chunk, Reply):
                self._write(f"\n  {in_words(chunk.latency)}\n")

    def _open_loudspeaker(self) -> Loudspeaker | None:
        """The loudspeaker, if the reply is to be spoken and there is one; opened again after it was gone."""
        if self._voice is None:
            return None
        try:
            if self._loudspeaker is not None and not self._loudspeaker.alive:
                with contextlib.suppress(Exception):
                    self._loudspeaker.close()
                self._loudspeaker = None
            if self._loudspeaker is None:
                self._loudspeaker = Loudspeaker(self._options.output_device)
        except SoundDeviceError as error:
            self._write(f"  {error} The reply is written only.\n")
        return self._loudspeaker
