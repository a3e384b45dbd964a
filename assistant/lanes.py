"""The two lanes that answer the same utterance: one interface, two implementations, streamed as typed chunks."""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from assistant.audio import SAMPLE_RATE, AudioError, Utterance
from assistant.checkpoint import read_config, read_lora
from assistant.latency import Latency, StageClock
from assistant.llm import LLM, MAX_REPLY, Message, load_llm
from assistant.speech_encoder import load_whisper
from assistant.speech_lm import SpeechLM, load_speech_lm, user_turn
from assistant.transcriber import Transcriber

CHECKPOINT = Path(__file__).resolve().parent.parent / "assets" / "checkpoints" / "v0"
NOTHING_HEARD = "No words were heard. Speak a little louder or closer to the microphone, and try again."


@dataclass(frozen=True)
class Heard:
    """What a lane heard: the cascade's transcript, or the end-to-end lane's greedy reading (None: it has none)."""

    text: str | None


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


class Lane(ABC):
    """One way from speech to a reply.

    `name` is "end_to_end" or "cascade"; `precision` says in words what arithmetic it runs on.
    """

    name: str
    precision: str = "not stated"

    @abstractmethod
    def answer(self, utterance: Utterance, instruction: str | None = None) -> Iterator[Chunk]:
        """Stream the reply to an utterance, alone or with a written instruction about it.

        Closing the iterator stops the work. Only one lane of a process works at a time, so that neither is timed
        while the other competes for the machine.
        """


# Held while a lane works: two visitors, or two lanes, would otherwise be timed while they slow each other down.
_machine = threading.Lock()


class _ModelLane(Lane):
    """What both lanes share: everything but how speech becomes something that the LLM can take."""

    llm: LLM
    max_tokens: int

    @abstractmethod
    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, str | None]:
        """Samples [n] at 16 kHz -> what the LLM gets (empty when nobody spoke), and what was heard in words."""

    def lora(self) -> AbstractContextManager[None]:
        """Within this context the LLM answers this lane."""
        return contextlib.nullcontext()

    @property
    def precision(self) -> str:  # type: ignore[override]
        """See `Lane`."""
        return f"LLM {self.llm.precision}, Whisper float32"

    def answer(self, utterance: Utterance, instruction: str | None = None) -> Iterator[Chunk]:
        """See `Lane.answer`. Raises AudioError when no words are heard."""
        with _machine, self.lora():
            clock = StageClock(self.llm.device)
            with clock.stage("features"):
                samples = utterance.resampled()
            content, heard = self.hear(samples, clock)
            if not len(content):
                raise AudioError(NOTHING_HEARD)
            yield Heard(heard)
            text = ""
            for piece in self._generate(user_turn(content, instruction), clock, self.max_tokens):
                text += piece
                yield TextDelta(piece)
            yield Reply(text.strip(), heard, clock.finish(utterance.duration))

    def warm_up(self) -> None:
        """Every stage once, so that the first visitor does not pay for memory, kernels and the prompt's start."""
        noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
        with _machine, self.lora():
            clock = StageClock(self.llm.device)
            self.hear(noise, clock)
            list(self._generate(user_turn("Hello.", None), clock, 2))

    def _generate(self, turn: Message, clock: StageClock, tokens: int) -> Iterator[str]:
        with clock.stage("prefill"):
            prompt = self.llm.prompt([turn])
        yield from self.llm.stream(prompt, clock, tokens)


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

    def lora(self) -> AbstractContextManager[None]:
        """See `_ModelLane.lora`."""
        return self.llm.lora()

    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, str | None]:
        """See `_ModelLane.hear`."""
        speech = self.model.hear(samples, clock)
        return speech.vectors, self.model.reading(speech)


@dataclass
class CascadeLane(_ModelLane):
    """Whisper transcribes, then the same LLM, without LoRA, answers the transcript."""

    transcriber: Transcriber
    llm: LLM
    max_tokens: int = MAX_REPLY
    name: str = "cascade"

    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, str | None]:
        """See `_ModelLane.hear`."""
        transcript = self.transcriber.transcribe(samples, clock)
        return transcript, transcript


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
