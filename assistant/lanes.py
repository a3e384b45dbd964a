"""The two lanes that answer the same utterance: one interface, two implementations, streamed as typed chunks."""

import contextlib
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from assistant.audio import SAMPLE_RATE, AudioError, Utterance
from assistant.latency import Latency, StageClock
from assistant.llm import LLM, MAX_REPLY, Message
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


@dataclass
class EndToEndLane(Lane):
    """Speech vectors straight into the LLM, with LoRA on when the checkpoint has it."""

    model: SpeechLM
    max_tokens: int = MAX_REPLY
    name: str = "end_to_end"

    @property
    def precision(self) -> str:  # type: ignore[override]
        """See `Lane`."""
        return _precision(self.model.llm)

    def answer(self, utterance: Utterance, instruction: str | None = None) -> Iterator[Chunk]:
        """See `Lane.answer`. Raises AudioError when no words are heard."""
        with _machine, self.model.llm.lora():
            clock = StageClock(self.model.llm.device)
            with clock.stage("features"):
                samples = utterance.resampled()
            speech = self.model.hear(samples, clock)
            if not len(speech.vectors):
                raise AudioError(NOTHING_HEARD)
            reading = self.model.reading(speech)
            yield Heard(reading)
            turn = user_turn(speech.vectors, instruction)
            yield from _reply(self.model.llm, turn, reading, clock, utterance.duration, self.max_tokens)


@dataclass
class CascadeLane(Lane):
    """Whisper transcribes, then the same LLM, without LoRA, answers the transcript."""

    transcriber: Transcriber
    llm: LLM
    max_tokens: int = MAX_REPLY
    name: str = "cascade"

    @property
    def precision(self) -> str:  # type: ignore[override]
        """See `Lane`."""
        return _precision(self.llm)

    def answer(self, utterance: Utterance, instruction: str | None = None) -> Iterator[Chunk]:
        """See `Lane.answer`. Raises AudioError when no words are heard."""
        with _machine:
            clock = StageClock(self.llm.device)
            with clock.stage("features"):
                samples = utterance.resampled()
            transcript = self.transcriber.transcribe(samples, clock)
            if not transcript:
                raise AudioError(NOTHING_HEARD)
            yield Heard(transcript)
            turn = user_turn(transcript, instruction)
            yield from _reply(self.llm, turn, transcript, clock, utterance.duration, self.max_tokens)


def _precision(llm: LLM) -> str:
    return f"LLM {llm.precision}, Whisper float32"


def _reply(
    llm: LLM, turn: Message, heard: str | None, clock: StageClock, duration: float, max_tokens: int
) -> Iterator[Chunk]:
    """From the user's turn to the streamed reply: the same code for both lanes."""
    text = ""
    with clock.stage("prefill"):
        prompt = llm.prompt([turn])
    for piece in llm.stream(prompt, clock, max_tokens):
        text += piece
        yield TextDelta(piece)
    yield Reply(text.strip(), heard, clock.finish(duration))


@dataclass(frozen=True)
class ModelOptions:
    """What to load; the defaults run on any laptop. None takes the base model that the checkpoint was trained with."""

    llm: str | None = None
    whisper: str | None = None
    checkpoint: Path = CHECKPOINT
    precision: str = "auto"
    device: str = "auto"
    max_tokens: int = MAX_REPLY


def load_lanes(options: ModelOptions | None = None) -> dict[str, Lane]:
    """Both lanes on one LLM and one Whisper, warmed up; keys "end_to_end" and "cascade".

    Raises
    ------
    CheckpointError, WeightsError
        See `load_speech_lm`.
    """
    options = options or ModelOptions()
    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_speech_lm(options.checkpoint, options.llm, options.whisper, options.precision, torch.device(device))
    transcriber = Transcriber(model.whisper)
    _warm_up(model, transcriber)
    return {
        "end_to_end": EndToEndLane(model, options.max_tokens),
        "cascade": CascadeLane(transcriber, model.llm, options.max_tokens),
    }


def _warm_up(model: SpeechLM, transcriber: Transcriber) -> None:
    """Every stage once, so that the first visitor does not pay for memory, kernels and the prompt's common start."""
    clock = StageClock(model.llm.device)
    noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
    model.hear(noise, clock)
    transcriber.transcribe(noise, clock)
    for switch in (contextlib.nullcontext, model.llm.lora):
        with switch():
            list(_reply(model.llm, user_turn("Hello.", None), None, clock, 1.0, max_tokens=2))


def precision_in_words(lanes: dict[str, Lane]) -> str:
    """The precision that figures were measured with."""
    return " / ".join(sorted({lane.precision for lane in lanes.values()}))
