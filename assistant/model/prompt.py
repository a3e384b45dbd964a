"""What is put to the LLM, and what the LLM remembers of it: messages, prompts, and the keys and values of one read."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache


@dataclass(frozen=True)
class Message:
    """One turn: `role` is system, user or assistant; `parts` are texts and speech vectors [n, llm_width], in order."""

    role: str
    parts: Sequence[str | Tensor]


def user_turn(speech: Tensor | str | Sequence[Tensor | str], text: str | None) -> Message:
    """The turn both lanes put to the LLM: speech vectors here, a transcript there, and nothing else different.

    `speech` is one clip or any number of them.

    Speech alone is an instruction; with a written instruction it is the content that the instruction is about, in the
    form in which Self-Powered LSM puts a transcript to its LLM: "instruction: content". Text alone is itself.
    """
    text = (text or "").strip()
    clips = [speech] if isinstance(speech, str | Tensor) else speech
    if not clips:
        return Message("user", [text])
    spoken = [part for clip in clips for part in ("\n", clip)][1:]
    instruction = text.rstrip(".:")
    return Message("user", [f"{instruction}: ", *spoken] if instruction else spoken)


@dataclass(frozen=True)
class Prompt:
    """Token ids [n] with placeholders where `speech` [n] is true, and the `vectors` [speech.sum(), width] for them."""

    ids: Tensor
    speech: Tensor
    vectors: Tensor | None = None

    def followed_by(self, tokens: Sequence[int]) -> "Prompt":
        """This prompt with more text tokens at its end."""
        more = torch.tensor(tokens, dtype=self.ids.dtype, device=self.ids.device)
        return Prompt(
            torch.cat([self.ids, more]), torch.cat([self.speech, torch.zeros_like(more).bool()]), self.vectors
        )

    def shared(self, other: "Prompt") -> int:
        """How many positions both begin with alike; speech is alike when its vectors are."""
        shortest = min(len(self.ids), len(other.ids))
        same = self.ids[:shortest] == other.ids[:shortest]
        same &= self.speech[:shortest] == other.speech[:shortest]
        if self.vectors is not None and other.vectors is not None:
            clips = min(len(self.vectors), len(other.vectors))
            alike = (self.vectors[:clips] == other.vectors[:clips]).all(1)
            which = (self.speech[:shortest].cumsum(0) - 1).clamp(0, clips - 1)  # the vector at each position
            same &= alike[which] | ~self.speech[:shortest]
        return int(same.long().cumprod(0).sum())


class Memory:
    """The last thing an LLM has read, with its keys and values: a prompt that begins alike costs only its rest.

    Belongs to one lane of one conversation. It is never wrong, only more or less useful: what a prompt does not share
    with it is dropped. Not for two threads at once.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Free the keys and values; the next prompt is read from its start."""
        self.read: Prompt | None = None
        self._cache: DynamicCache | None = None
        self._logits: Tensor | None = None
        self._lora = False

    def keep(self, read: Prompt, cache: DynamicCache, logits: Tensor | None, lora: bool) -> None:
        """`cache` holds exactly what was `read`, with LoRA on or off; `logits` [vocabulary] say what follows it."""
        self.read, self._cache, self._logits, self._lora = read, cache, logits, lora

    def shared(self, prompt: Prompt, lora: bool) -> int:
        """How many tokens of `prompt` need not be read again."""
        if self.read is None or self._cache is None or lora != self._lora:
            return 0
        if not getattr(self._cache, "is_croppable", True) and len(self.read.ids) > self.read.shared(prompt):
            return 0  # a recurrent model cannot go back
        return self.read.shared(prompt)

    def recall(self, prompt: Prompt, lora: bool) -> tuple[DynamicCache | None, int, Tensor | None]:
        """Give away the cache of the shared start, its length, and the logits if all of `prompt` was read before.

        The memory is empty afterwards, until `keep`: whatever happens meanwhile leaves nothing wrong in it.
        """
        known, cache, logits, read = self.shared(prompt, lora), self._cache, self._logits, self.read
        self.forget()
        if not known or cache is None or read is None:
            return None, 0, None
        if known == len(prompt.ids) == len(read.ids) and logits is not None:
            return cache, known, logits
        known = min(known, len(prompt.ids) - 1)  # the last token must be read for its logits
        if len(read.ids) > known:
            cache.crop(known - len(read.ids))
        return cache, known, None
