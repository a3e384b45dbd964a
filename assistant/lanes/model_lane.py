"""What both lanes do alike: hear, prompt, stream, remember. They differ in how speech becomes part of a prompt."""

import threading
from abc import abstractmethod
from collections.abc import Callable

import numpy as np
from torch import Tensor

from assistant.lanes.anticipation import Anticipation, Ready
from assistant.lanes.dialogue import Dialogue, Said, Turn
from assistant.lanes.lane import NOTHING_HEARD, TOO_MUCH, Chunks, Heard, Lane, Reply, TextDelta
from assistant.latency import StageClock
from assistant.model.llm import LLM
from assistant.model.prompt import Message, Prompt, user_turn
from assistant.process import MACHINE
from assistant.sound.audio import SAMPLE_RATE, AudioError


class ModelLane(Lane):
    """Everything but how speech becomes something that the LLM can take."""

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
        turn: Turn,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        """See `Lane.answer`."""
        dialogue = dialogue or Dialogue()
        ready = early.take(turn) if early else None
        with MACHINE:
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

        return Anticipation(turn, MACHINE, hear)

    def warm_up(self) -> None:
        """Every stage once, so that the first visitor does not pay for memory, kernels and the prompt's start."""
        noise = np.random.default_rng(0).normal(0, 0.1, 2 * SAMPLE_RATE).astype(np.float32)
        clock = StageClock(self.llm.device)
        with MACHINE:
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
