"""The two lanes that answer the same utterance: one interface, two implementations, streamed as typed chunks."""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assistant.anticipation import Anticipation, Ready
from assistant.audio import SAMPLE_RATE, AudioError, Utterance
from assistant.checkpoint import read_config, read_lora
from assistant.dialogue import Dialogue, Said, Turn
from assistant.latency import Latency, StageClock
from assistant.llm import LLM, MAX_REPLY, load_llm
from assistant.prompt import Message, Prompt
from assistant.speech_encoder import load_whisper
from assistant.speech_lm import SpeechLM, load_speech_lm, user_turn
from assistant.transcriber import Transcriber

CHECKPOINT = Path(__file__).resolve().parent.parent / "assets" / "checkpoints" / "v1"
TOO_MUCH = "That is more than the LLM can take in at once. Say or write it in smaller parts."
NOTHING_HEARD = "No words were heard. Speak a little louder or closer to the microphone, and try again."


@dataclass(frozen=True)
class Heard:
    """What a lane heard: the cascade's transcript, or the end-to-end lane's greedy reading.

    None when the lane has no words for it, or the turn was written. `confidence` is a probability for each word, where
    the lane knows.
    """

    text: str | None
    confidence: tuple[float, ...] | None = None


@dataclass(frozen=True)
class TextDelta:
    """The next piece of the reply's text."""

    text: str


@dataclass(frozen=True)
class Reply:
    """The whole reply, last chunk of every answer."""

    text: str
    heard: str | None
    latency: Latency


Chunk = Heard | TextDelta | Reply
Chunks = Generator[Chunk, None, None]


class Lane(ABC):
    """One way from speech to a reply.

    `name` is "end_to_end" or "cascade"; `precision` says in words what arithmetic it runs on.
    """

    name: str
    precision: str = "not stated"

    @abstractmethod
    def answer(
        self,
        said: Utterance | Turn,
        instruction: str | None = None,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """Stream the reply to an utterance (alone or with a written instruction about it), or to any turn.

        Closing the iterator, or setting `stop` from another thread, ends the reply before its next token. Only one
        lane of a process works at a time, so that neither is timed while the other competes for the machine.

        Parameters
        ----------
        dialogue: what was said before; this exchange is added to it as it happens.
        early: what `anticipate` began of this very turn.
        """

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        """Begin in the background with a turn that may not be over: hear it and read it into the LLM."""
        raise NotImplementedError(f"The {self.name} lane cannot hear early.")


# Held while a lane works: two visitors, or two lanes, would otherwise be timed while they slow each other down.
_machine = threading.Lock()


class _ModelLane(Lane):
    """What both lanes share: everything but how speech becomes something that the LLM can take."""

    llm: LLM
    max_tokens: int

    @abstractmethod
    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, Heard]:
        """Samples [n] at 16 kHz -> what the LLM gets (empty when nobody spoke), and what was heard in words."""

    @property
    def precision(self) -> str:  # type: ignore[override]
        """See `Lane`."""
        return f"LLM {self.llm.precision}, Whisper float32"

    def answer(
        self,
        said: Utterance | Turn,
        instruction: str | None = None,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """See `Lane.answer`. Raises AudioError when no words are heard, or more was said than the LLM can take."""
        turn = said if isinstance(said, Turn) else Turn((said,), instruction or "")
        dialogue = dialogue or Dialogue()
        ready = early.take(turn) if early else None
        with _machine:
            ready = ready or self._hear(turn)
            clock = ready.clock
            message = user_turn(ready.contents, turn.text)
            with clock.stage("prefill"):
                prompt = self._prompt(message, dialogue)
            exchange = Said(message, ready.heard)
            dialogue.exchanges.append(exchange)
            yield Heard(ready.heard, ready.confidence)
            with self.llm.lora(prompt.vectors is not None):
                for piece in self.llm.stream(prompt, clock, self.max_tokens, dialogue.memory, stop):
                    exchange.reply += piece
                    yield TextDelta(piece)
            exchange.latency = clock.finish(turn.duration, turn.endpoint)
            yield Reply(exchange.reply.strip(), ready.heard, exchange.latency)

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        """See `Lane.anticipate`. What is read early goes into the dialogue's memory, never into what was said."""
        dialogue = dialogue or Dialogue()

        def hear(wanted: Callable[[], bool]) -> Ready | None:
            try:
                ready = self._hear(turn)
                with ready.clock.stage("prefill"):
                    prompt = self._prompt(user_turn(ready.contents, turn.text), dialogue)
            except AudioError:
                return None  # the answer will meet it again, and say so
            if wanted():
                with self.llm.lora(prompt.vectors is not None):
                    self.llm.read(prompt, ready.clock, dialogue.memory)
            return ready

        return Anticipation(turn, _machine, hear)

    def warm_up(self) -> None:
        """Every stage once, so that the first visitor does not pay for memory, kernels and the prompt's start."""
        noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
        clock = StageClock(self.llm.device)
        with _machine:
            self.hear(noise, clock)
            prompt = self.llm.prompt([Message("user", ["Hello."])])
            for lora in (False, True):
                with self.llm.lora(lora):
                    list(self.llm.stream(prompt, clock, 2))

    def _hear(self, turn: Turn) -> Ready:
        """Every clip of a turn; raises AudioError when there are some and none holds words."""
        clock = StageClock(self.llm.device)
        contents: list[Tensor | str] = []
        heard: list[Heard] = []
        for clip in turn.clips:
            with clock.stage("features"):
                samples = clip.resampled()
            content, words = self.hear(samples, clock)
            if len(content):
                contents.append(content)
                heard.append(words)
        if turn.clips and not contents:
            raise AudioError(NOTHING_HEARD)
        known = [words for words in heard if words.text is not None]
        confidence = None
        if known and all(words.confidence is not None for words in known):
            confidence = tuple(value for words in known for value in words.confidence or ())
        return Ready(contents, "\n".join(words.text or "" for words in known) if known else None, clock, confidence)

    def _prompt(self, message: Message, dialogue: Dialogue) -> Prompt:
        """The conversation so far and the new turn; where both and a reply do not fit, the older half is forgotten."""
        while True:
            prompt = self.llm.prompt([*dialogue.messages(), message])
            if len(prompt.ids) + self.max_tokens <= self.llm.context:
                return prompt
            if not dialogue.exchanges:
                raise AudioError(TOO_MUCH)
            dialogue.forget_older_half()


@dataclass
class EndToEndLane(_ModelLane):
    """Speech vectors straight into the LLM, with LoRA on when the checkpoint has it."""

    model: SpeechLM
    max_tokens: int = MAX_REPLY
    name: str = "end_to_end"

    @property
    def llm(self) -> LLM:  # type: ignore[override]
        """The LLM of the speech-LLM."""
        return self.model.llm

    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, Heard]:
        """See `_ModelLane.hear`."""
        speech = self.model.hear(samples, clock)
        return speech.vectors, Heard(*self.model.reading(speech))


@dataclass
class CascadeLane(_ModelLane):
    """Whisper transcribes, then the same LLM, without LoRA, answers the transcript."""

    transcriber: Transcriber
    llm: LLM
    max_tokens: int = MAX_REPLY
    name: str = "cascade"

    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, Heard]:
        """See `_ModelLane.hear`."""
        transcript = self.transcriber.transcribe(samples, clock)
        return transcript, Heard(transcript)


@dataclass(frozen=True)
class ModelOptions:
    """What to load; the defaults run on any laptop. None takes the base model that the checkpoint was trained with.

    The cascade alone takes any `llm` and any `whisper`; the end-to-end lane those that `checkpoint` was trained for.
    """

    llm: str | None = None
    whisper: str | None = None
    checkpoint: Path = CHECKPOINT
    precision: str = "auto"
    device: str = "auto"
    max_tokens: int = MAX_REPLY
    lanes: tuple[str, ...] = ("end_to_end", "cascade")


def load_lanes(options: ModelOptions | None = None) -> dict[str, Lane]:
    """The wanted lanes by name, end-to-end first, on one LLM and one Whisper, warmed up.

    Raises
    ------
    CheckpointError, WeightsError
        The checkpoint does not fit, or the base models cannot be had.
    """
    options = options or ModelOptions()
    name = options.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    config = read_config(options.checkpoint)
    speech = "end_to_end" in options.lanes
    lora = read_lora(options.checkpoint, config) if speech else None
    llm = load_llm(options.llm or config.llm, options.precision, device, lora)
    whisper = load_whisper(options.whisper or config.whisper, device)
    lanes: dict[str, _ModelLane] = {}
    if speech:
        model = load_speech_lm(options.checkpoint, config, whisper, llm)
        lanes["end_to_end"] = EndToEndLane(model, options.max_tokens)
    if "cascade" in options.lanes:
        lanes["cascade"] = CascadeLane(Transcriber(whisper), llm, options.max_tokens)
    for lane in lanes.values():
        lane.warm_up()
    return dict(lanes)


def precision_in_words(lanes: dict[str, Lane]) -> str:
    """The precision that figures were measured with."""
    return " / ".join(sorted({lane.precision for lane in lanes.values()}))
