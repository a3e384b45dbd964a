"""The one resident LLM: load, quantise, chat template, key/value caches, greedy streaming generation, LoRA."""

import contextlib
import copy
import functools
import math
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    DynamicCache,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from assistant.latency import StageClock
from assistant.limits import CONTEXT, MAX_REPLY, MEMORIES
from assistant.model import stored_llm
from assistant.model.chat import MARK, Spoken, fill, turn_end
from assistant.model.decoder import lean, new_cache
from assistant.model.detokeniser import Detokeniser
from assistant.model.plain_text import PlainText, readable
from assistant.model.prompt import Memory, Message, Prompt
from assistant.model.quantisation import chosen, quantise
from assistant.model.spelling import Writer
from assistant.model.weights import WeightsError, llm_source, registry
from assistant.process import loading_with_transformers

BYTES_PER_PARAMETER = {"int8": 4, "float32": 4, "float16": 2, "bfloat16": 2}  # int8: made of float16, one by one


@dataclass
class LLM:
    """A chat model in memory, shared by both lanes; `precision` is int8, float32, float16 or bfloat16.

    `system` is what every conversation begins with, such as who the assistant is.
    """

    name: str
    precision: str
    device: torch.device
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    system: str = ""
    _prefixes: dict[bool, Memory] = field(default_factory=dict)
    _recent: "list[weakref.ref[Memory]]" = field(default_factory=list)  # oldest first
    _has_lora: bool = False
    _lora_on: bool = False

    @property
    def embeddings(self) -> Tensor:
        """Input embeddings [vocabulary, width]."""
        weight = self.model.get_input_embeddings().weight
        assert isinstance(weight, Tensor)
        return weight

    @functools.cached_property
    def plain_text(self) -> PlainText:
        """What a person wrote, as tokens."""
        return PlainText(self.tokenizer)

    @property
    def writer(self) -> Writer:
        """How it writes words, for a connector that reads them."""
        return Writer(self.tokenizer, self.model.get_input_embeddings())

    @property
    def context(self) -> int:
        """The most tokens that a prompt and its reply may have together."""
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return min(CONTEXT, limit or CONTEXT)

    # Prompts ------------------------------------------------------------------------------------------------------

    def prompt(self, messages: Sequence[Message], reply: bool = True) -> Prompt:
        """Fill in the chat template; every speech vector takes the place of one token.

        `reply` appends the opening of the assistant's turn. `system`, if there is any, stands before all else.
        """
        if self.system:
            messages = [Message("system", [self.system]), *messages]
        inserted: list[Tensor | list[int]] = []
        filled = [{"role": each.role, "content": self._content(each, inserted)} for each in messages]
        first, *others = fill(self.tokenizer, filled, reply).split(MARK)
        ids = list(self.tokenizer(first, add_special_tokens=False).input_ids)
        speech = [False] * len(ids)
        for insert, piece in zip(inserted, self.writer.spell(others), strict=True):
            ids += [*([0] * len(insert) if isinstance(insert, Tensor) else insert), *piece]
            speech += [isinstance(insert, Tensor)] * len(insert) + [False] * len(piece)
        clips = [insert for insert in inserted if isinstance(insert, Tensor)]
        vectors = torch.cat(clips) if clips else None
        return Prompt(torch.tensor(ids, device=self.device), torch.tensor(speech, device=self.device), vectors)

    def _content(self, message: Message, inserted: list[Tensor | list[int]]) -> str:
        """A message for the template: a MARK for each speech vector, and for text that looks like the template's own.

        What belongs there is added to `inserted`.
        """
        content, text = "", ""
        for part in message.parts:
            if isinstance(part, str):
                text += part
            else:
                content += self._written(text, inserted) + MARK
                inserted.append(part)
                text = ""
        return content + self._written(text, inserted)

    def _written(self, text: str, inserted: list[Tensor | list[int]]) -> str:
        text = readable(text)
        if MARK not in text and not self.plain_text.holds_mark(text):
            return text
        inserted.append(self.plain_text.tokens(text))
        return MARK

    def embed(self, prompt: Prompt) -> Tensor:
        """Input vectors [1, n, width]: the LLM's own for text, the prompt's for speech."""
        embedded = self.model.get_input_embeddings()(prompt.ids)  # [n, width]
        if prompt.vectors is not None:
            embedded = embedded.masked_scatter(prompt.speech[:, None], prompt.vectors.to(embedded.dtype))
        return embedded[None]

    # Generation ---------------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def read(self, prompt: Prompt, clock: StageClock, memory: Memory) -> None:
        """Read a prompt into `memory`, first logits included, so that `stream` starts at once; times `prefill`."""
        with clock.stage("prefill"):
            logits, cache = self._prefill(prompt, memory)
        self._keep(memory, prompt, cache, logits)

    @torch.inference_mode()
    def stream(
        self,
        prompt: Prompt,
        clock: StageClock,
        max_tokens: int = MAX_REPLY,
        memory: Memory | None = None,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        """Yield the greedy reply in pieces of text as they become readable; times `prefill` and every token.

        What `memory` shares with the prompt is not read again, and it remembers the prompt and the reply afterwards.
        `stop`, set by any thread, ends the reply before its next token.
        """
        memory = memory or Memory()
        with clock.stage("prefill"):
            logits, cache = self._prefill(prompt, memory)
        ends = self.end_tokens
        tokens: list[int] = []
        text, voice = Detokeniser(self.tokenizer), Spoken()
        try:
            while len(tokens) < max_tokens and not (stop and stop.is_set()):
                token = int(logits.argmax())
                if token in ends:
                    break
                tokens.append(token)
                piece = voice.of(text.add(token))
                clock.token(shown=bool(piece))
                if piece:
                    yield piece
                step = torch.tensor([[token]], device=self.device)
                logits = self.model(input_ids=step, past_key_values=cache, use_cache=True).logits[0, -1]
            if rest := voice.rest():
                yield rest
        finally:
            read = tokens[: cache.get_seq_length() - len(prompt.ids)]  # the last one was shown, not read
            self._keep(memory, prompt.followed_by(read), cache, None)

    @functools.cached_property
    def end_tokens(self) -> set[int]:
        """Token ids with which a reply ends."""
        ends = self.model.generation_config.eos_token_id
        known = [*(ends if isinstance(ends, list) else [ends]), self.tokenizer.eos_token_id, turn_end(self.tokenizer)]
        return {token for token in known if token is not None}

    def _prefill(self, prompt: Prompt, memory: Memory | None = None) -> tuple[Tensor, DynamicCache]:
        """Logits of the next token [vocabulary] and the cache of the whole prompt."""
        prefix = self._prefix()
        if memory is None or memory.shared(prompt, self._lora_on) < prefix.shared(prompt, self._lora_on):
            memory = copy.deepcopy(prefix)
        cache, known, logits = memory.recall(prompt, self._lora_on)
        if cache is None:
            cache = new_cache(self.model)
        if logits is None:
            logits = self._extend(self.embed(prompt)[:, known:], cache)
        return logits, cache

    def _keep(self, memory: Memory, read: Prompt, cache: DynamicCache, logits: Tensor | None) -> None:
        """Let `memory` keep what was read, and the conversation that was silent longest give up its own."""
        memory.keep(read, cache, logits, self._lora_on)
        others = [one for one in self._recent if one() not in (None, memory)]
        for old in others[: 1 - MEMORIES]:
            if (forgotten := old()) is not None:
                forgotten.forget()
        self._recent = [*others[1 - MEMORIES :], weakref.ref(memory)]

    def _extend(self, embedded: Tensor, cache: DynamicCache) -> Tensor:
        """Run vectors [1, n, width] on top of `cache`; logits of the next token [vocabulary]."""
        output = self.model(inputs_embeds=embedded, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return output.logits[0, -1]

    def _prefix(self) -> Memory:
        """What two different questions have in common at the start, computed once for LoRA on and once for off."""
        if self._lora_on not in self._prefixes:
            first, second = (self.prompt([Message("user", [text])]) for text in ("One", "?"))
            same = first.shared(second)
            start = Prompt(first.ids[:same], first.speech[:same])
            cache = new_cache(self.model)
            logits = self._extend(self.embed(start), cache) if same else None
            self._prefixes[self._lora_on] = prefix = Memory()
            prefix.keep(start, cache, logits, self._lora_on)
        return self._prefixes[self._lora_on]

    # LoRA ---------------------------------------------------------------------------------------------------------

    def add_lora(self, settings: dict[str, Any], state: dict[str, Tensor] | None = None) -> None:
        """Put LoRA matrices (peft's settings: `r`, `lora_alpha`, `target_modules`) beside the LLM's, switched off."""
        from peft import LoraConfig, inject_adapter_in_model

        inject_adapter_in_model(LoraConfig(**settings), self.model)
        self._has_lora = True
        if state is not None:
            self.swap_lora(state)
        self.switch_lora(False)

    def swap_lora(self, state: dict[str, Tensor]) -> None:
        """Put other matrices, trained with the same settings, in the place of those that are there."""
        from peft import set_peft_model_state_dict

        set_peft_model_state_dict(self.model, state)
        self._prefixes.pop(True, None)

    def lora_state(self) -> dict[str, Tensor]:
        """The LoRA matrices by the names that `add_lora` takes."""
        from peft import get_peft_model_state_dict

        return dict(get_peft_model_state_dict(self.model))

    @contextlib.contextmanager
    def lora(self, on: bool = True) -> Iterator[None]:
        """Within this block LoRA is on: for prompts that hold speech. Outside, the LLM is its untouched self."""
        self.switch_lora(on and self._has_lora)
        try:
            yield
        finally:
            self.switch_lora(False)

    def switch_lora(self, on: bool) -> None:
        """Turn LoRA on or off until further notice, its gradients too: training, whose backward pass comes later."""
        self._lora_on = on
        if self._has_lora:
            from peft.tuners.tuners_utils import BaseTunerLayer

            for module in self.model.modules():
                if isinstance(module, BaseTunerLayer):
                    module.enable_adapters(on)


def load_llm(
    name: str,
    precision: str = "auto",
    device: torch.device | str = "cpu",
    lora: tuple[dict[str, Any], dict[str, Tensor]] | None = None,
) -> LLM:
    """Load a chat model: a name in `models.toml`, a folder or a name on the hub (safetensors only), or a GGUF file.

    Parameters
    ----------
    precision: int8 (CPU only), float32, float16, bfloat16; auto takes int8 on a CPU and bfloat16 on a GPU.
    lora: peft's settings and trained matrices; added before quantisation, so they stay exact.

    Raises
    ------
    WeightsError
        The model cannot be found, is none for chat, or does not fit into memory.
    """
    device = torch.device(device)
    precision = chosen(precision, device)
    if precision not in ("int8", "float32", "float16", "bfloat16"):
        raise WeightsError(f"Unknown precision {precision!r}. Use auto, int8, float32, float16 or bfloat16.")
    if precision == "int8" and device.type != "cpu":
        raise WeightsError("int8 runs on the CPU only. Use --precision bfloat16 on a GPU.")
    with loading_with_transformers(hub=name not in registry() and not Path(name).is_dir()):
        try:
            source = stored_llm.prepared(name) if precision == "int8" else llm_source(name)
            stored = precision == "int8" and stored_llm.holds(source)
            kind = AutoConfig.from_pretrained(source)
            if kind.is_encoder_decoder:
                raise WeightsError(f"{name} is an encoder-decoder model ({kind.model_type}). {_CHAT_MODEL}")
            tokenizer = AutoTokenizer.from_pretrained(source)
            if not tokenizer.chat_template:
                raise WeightsError(f"{name} has no chat template: it is a base model. {_CHAT_MODEL}")
            if stored:
                model = stored_llm.outline(Path(source))
            else:
                _refuse_what_does_not_fit(name, source, precision, device)
                # The files hold 16-bit weights; quantising from them keeps the peak of memory low.
                dtype = torch.float16 if precision == "int8" else getattr(torch, precision)
                model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, use_safetensors=True)
        except (OSError, ValueError, KeyError, ImportError, SafetensorError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            known = ", ".join(name for name, model in registry().items() if model.kind == "llm")
            raise WeightsError(
                f"The LLM {name!r} cannot be loaded: {first} Give a folder, a GGUF file, a name on the hub, or one of "
                f"{known}."
            ) from error
    llm = LLM(name, precision, device, model.eval().requires_grad_(False), tokenizer)
    if lora is not None:
        llm.add_lora(lora[0])
    if precision == "int8":
        if not lean(llm.model) and stored:
            raise WeightsError(f"This LoRA is more than two matrices a layer: use --precision float32 with {name}.")
        if stored:
            stored_llm.fill(llm.model, Path(source))
        else:
            quantise(llm.model)
    if lora is not None:
        llm.swap_lora(lora[1])
    llm.model.to(device)  # type: ignore[arg-type]  # transformers wraps torch's method without its types
    return llm


_CHAT_MODEL = "Name an instruction-tuned model, one that is made for chat."


def _refuse_what_does_not_fit(name: str, source: Path | str, precision: str, device: torch.device) -> None:
    """Raise WeightsError where the weights of a folder would take more memory than is free."""
    if device.type != "cpu" or not Path(source).is_dir():
        return
    needed, free = memory_needed(Path(source), precision), psutil.virtual_memory().available
    if needed > free:
        raise WeightsError(
            f"{name} needs about {needed / 2**30:.1f} GiB of memory in {precision}, and {free / 2**30:.1f} are free. "
            "Close other programs, or name a smaller LLM."
        )


def memory_needed(folder: Path, precision: str) -> int:
    """About how many bytes of memory the LLM of a folder takes while it is loaded, which is when it takes most."""
    parameters = 0
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as tensors:
            names = tensors.keys()
            parameters += sum(math.prod(tensors.get_slice(tensor).get_shape()) for tensor in names)
    return parameters * BYTES_PER_PARAMETER[precision]
