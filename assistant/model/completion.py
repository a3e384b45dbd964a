"""Greedy replies to many prompts at once: for training targets and evaluation, where nobody waits for one reply."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from assistant.limits import MAX_REPLY
from assistant.model.chat import spoken
from assistant.model.llm import LLM
from assistant.model.prompt import Prompt

# Rows that are prefilled together, and that pass the output head together. Measured on a CPU with 1 MB of L2 per pair
# of cores: 64 rows at once take a third longer per row in the head and a sixth in the prefill, for their
# intermediate results no longer fit.
GROUP = 16


@dataclass(frozen=True)
class Completion:
    """A reply, its length in `tokens` (the end token not counted), and whether it `ended` before the limit."""

    text: str
    tokens: int
    ended: bool


@dataclass
class _Rows:
    """Replies in progress: which prompt each row answers, its last hidden state [rows, width], and its past.

    `mask` [rows, columns] tells which columns of the cache are a row's own; the others are padding.
    """

    prompts: list[int]
    hidden: Tensor
    cache: DynamicCache
    mask: Tensor

    def keep(self, rows: Tensor) -> None:
        """Drop all rows but these, and the leading columns that none of them uses."""
        self.prompts = [self.prompts[row] for row in rows.tolist()]
        mask = self.mask[rows]
        unused = int((mask.cumsum(1) == 0).all(0).sum())
        self.hidden, self.mask = self.hidden[rows], mask[:, unused:]
        layer: Any
        for layer in self.cache.layers:
            layer.keys, layer.values = layer.keys[rows, :, unused:], layer.values[rows, :, unused:]

    def join(self, other: _Rows) -> None:
        """Add the rows of `other`; whichever has fewer columns is padded at the front."""
        columns = max(self.mask.shape[1], other.mask.shape[1])

        def both(first: Tensor, second: Tensor) -> Tensor:
            return torch.cat([pad(past, (0, 0, columns - past.shape[-2], 0)) for past in (first, second)])

        self.prompts += other.prompts
        self.hidden = torch.cat([self.hidden, other.hidden])
        self.mask = both(self.mask[..., None], other.mask[..., None])[..., 0]
        layer: Any
        added: Any
        for layer, added in zip(self.cache.layers, other.cache.layers, strict=True):
            layer.keys, layer.values = both(layer.keys, added.keys), both(layer.values, added.values)


@torch.inference_mode()
def complete(
    llm: LLM, prompts: Sequence[Prompt], max_tokens: int = MAX_REPLY, batch_size: int = 64
) -> list[Completion]:
    """The greedy replies to many prompts, of text or speech, in their order; far faster than one after another.

    At most `batch_size` are answered at a time: a prompt moves up as soon as replies are finished. In float32 a
    reply does not depend on what it shares a batch with. In int8 and half precision it may where two tokens are
    about equally likely, for rounding differs (see Int8Linear); the same list gives the same replies.
    """
    # Prompts of like length are prefilled together, so that little is padded.
    waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index].ids))
    replies: list[list[int]] = [[] for _ in prompts]
    ended = [False] * len(prompts)
    ends = torch.tensor(sorted(llm.end_tokens), device=llm.device)
    rows: _Rows | None = None
    while waiting or (rows and rows.prompts):
        if waiting and (rows is None or len(rows.prompts) <= batch_size - min(GROUP, batch_size)):
            group, waiting = waiting[: min(GROUP, batch_size)], waiting[min(GROUP, batch_size) :]
            started = _prefill(llm, group, [prompts[index] for index in group])
            if rows and rows.prompts:
                rows.join(started)
            else:
                rows = started
            continue
        assert rows is not None
        tokens = _next_tokens(llm, rows.hidden)
        going = []
        for row, (index, token, end) in enumerate(
            zip(rows.prompts, tokens.tolist(), torch.isin(tokens, ends).tolist(), strict=True)
        ):
            ended[index] = end
            if not end:
                replies[index].append(token)
                if len(replies[index]) < max_tokens:
                    going.append(row)
        if len(going) < len(rows.prompts):
            kept = torch.tensor(going, dtype=torch.long, device=llm.device)
            tokens = tokens[kept]
            rows.keep(kept)
        if going:
            _step(llm, rows, tokens)
    texts = [spoken(str(llm.tokenizer.decode(reply, skip_special_tokens=True))) for reply in replies]
    return [Completion(text, len(reply), end) for text, reply, end in zip(texts, replies, ended, strict=True)]


def _next_tokens(llm: LLM, hidden: Tensor) -> Tensor:
    """The likeliest next token of every row [rows]."""
    head = llm.model.get_output_embeddings()
    return torch.cat([head(part).argmax(1) for part in hidden.split(GROUP)])


def _step(llm: LLM, rows: _Rows, tokens: Tensor) -> None:
    """Read one more token in every row."""
    position = rows.mask.sum(1, keepdim=True)
    rows.mask = pad(rows.mask, (0, 1), value=1)
    rows.hidden = _read(llm, llm.model.get_input_embeddings()(tokens)[:, None], rows.cache, rows.mask, position)[:, 0]


def _prefill(llm: LLM, indices: list[int], prompts: list[Prompt]) -> _Rows:
    """Read the prompts, up to where the replies begin.

    What all of them begin with runs once and is then repeated for each. The rests are padded at the end: a padding
    position always has something to attend to, and nothing attends to it.
    """
    same = _common_start(prompts)
    embedded = [llm.embed(prompt)[0] for prompt in prompts]
    cache = DynamicCache()
    if same:
        _read(llm, embedded[0][None, :same], cache)
        cache.batch_repeat_interleave(len(prompts))
    rest = pad_sequence([vectors[same:] for vectors in embedded], batch_first=True)  # [rows, longest rest, width]
    lengths = torch.tensor([len(vectors) - same for vectors in embedded], device=llm.device)
    columns = torch.arange(rest.shape[1], device=llm.device)
    mask = pad((columns < lengths[:, None]).long(), (same, 0), value=1)
    hidden = _read(llm, rest, cache, mask, (columns + same)[None].expand(len(prompts), -1))
    return _Rows(list(indices), hidden[torch.arange(len(prompts), device=llm.device), lengths - 1], cache, mask)


def _common_start(prompts: list[Prompt]) -> int:
    """How many text tokens all prompts begin with; at least one token of each is left over."""
    shortest = min(len(prompt.ids) for prompt in prompts) - 1
    ids = torch.stack([prompt.ids[:shortest] for prompt in prompts])
    speech = torch.stack([prompt.speech[:shortest] for prompt in prompts]).any(0)
    return int(((ids == ids[0]).all(0) & ~speech).long().cumprod(0).sum())


def _read(
    llm: LLM, embedded: Tensor, cache: DynamicCache, mask: Tensor | None = None, positions: Tensor | None = None
) -> Tensor:
    """Run vectors [rows, n, width] on top of `cache`; their last hidden states [rows, n, width]."""
    output = llm.model.get_decoder()(
        inputs_embeds=embedded, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
    )
    hidden: Tensor = output.last_hidden_state
    return hidden
