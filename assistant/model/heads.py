"""What a Q-Former ends in: a head that reads words and hands on what the LLM knows of them, or a single matrix."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from assistant.model.spelling import PADDING, Writer, respelt

BLANK = 0  # index of the CTC blank among the classes; word i of the head is class i + 1
LIKELIEST = 8  # words of which a soft token is mixed


@dataclass(frozen=True)
class Speech:
    """One utterance as the LLM meets it: `vectors` [n, llm_width] and, where words are read, what was read.

    `words` are the classes read, in order (` neighb`, `our`, `hood`), `confidence` their probability [words], `logits`
    [S, classes + 1] what CTC is trained on; all None where no words are read. `vectors` are None in a connector that
    was built without an LLM.
    """

    vectors: Tensor | None
    words: tuple[str, ...] | None = None
    confidence: Tensor | None = None
    logits: Tensor | None = None


class LinearHead(nn.Module):
    """The papers' projection: one matrix from a query's state to a vector for the LLM."""

    def __init__(self, width: int, llm_width: int) -> None:
        super().__init__()
        self.matrix = nn.Linear(width, llm_width)

    def forward(self, states: Tensor, lengths: Tensor) -> list[Speech]:
        """States [B, S, width], of which `lengths` [B] are real -> one `Speech` for each clip."""
        projected = self.matrix(states)
        return [Speech(clip[:length]) for clip, length in zip(projected, lengths.tolist(), strict=True)]


class VocabularyHead(nn.Module):
    """Reads words by CTC; a word read becomes *soft tokens*, the expected embeddings of the LLM tokens that write it.

    The rows of `matrix` are the words', Whisper's own (`spelling.word_rows`); training leaves them as they are. The
    blank stands apart from them.
    """

    spellings: Tensor

    def __init__(self, width: int, words: Sequence[str], writer: Writer | None, residual_width: int | None) -> None:
        super().__init__()
        self.words = tuple(words)
        self.matrix = nn.Linear(width, len(self.words), bias=False)
        self.blank = nn.Linear(width, 1)
        # Tells apart the states of training runs that read other words.
        digest = hashlib.sha256("\0".join(self.words).encode()).digest()
        self.register_buffer("words_digest", torch.tensor(list(digest)))
        self._writer = writer
        if writer is not None:
            self.register_buffer("spellings", writer.spellings(self.words), persistent=False)
        self.residual = None if residual_width is None else nn.Linear(width, residual_width, bias=False)
        if self.residual is not None:
            nn.init.zeros_(self.residual.weight)  # words alone, until training finds something to add

    def logits(self, states: Tensor) -> Tensor:
        """States [B, S, width] -> CTC logits [B, S, words + 1]."""
        return torch.cat([self.blank(states), self.matrix(states)], -1)

    def forward(self, states: Tensor, lengths: Tensor) -> list[Speech]:
        """States [B, S, width], of which `lengths` [B] are real -> one `Speech` for each clip."""
        clips = zip(states, self.logits(states), lengths.tolist(), strict=True)
        return [self.read(clip[:length], logits[:length]) for clip, logits, length in clips]

    def read(self, states: Tensor, logits: Tensor) -> Speech:
        """States [S, width] and CTC logits [S, words + 1] -> a soft token for each token of the words read.

        Blanks are dropped and repeats merged. The mean posterior of a word's steps, without its blank, weighs the LLM's
        input embeddings of the first token of each word that it may be, of the second, and so on: every vector is a
        convex combination of what the LLM knows (plus the residual, if any).
        """
        probabilities = logits.float().softmax(-1)  # [S, words + 1]
        best = probabilities.argmax(-1)
        first = _run_starts(best)
        spoken = best[first] != BLANK
        merged = _mean_of_runs(probabilities, first)[spoken]
        places = best[first][spoken] - 1
        words = tuple(self.words[place] for place in places.tolist())
        confidence = merged.gather(1, places[:, None] + 1)[:, 0]
        if self._writer is None:
            return Speech(None, words, confidence, logits)
        mixed = self._soft_tokens(self._writer, states, merged, first, spoken)
        rows = [[token for token in row if token != PADDING] for row in self.spellings[places].tolist()]
        vectors = [vector[: len(row)] for vector, row in zip(mixed, rows, strict=True)]
        spelt = respelt(self._writer, words, rows, vectors)
        return Speech(torch.cat(spelt) if spelt else mixed.flatten(0, 1), words, confidence, logits)

    def _soft_tokens(self, writer: Writer, states: Tensor, merged: Tensor, first: Tensor, spoken: Tensor) -> Tensor:
        """The mean posteriors of the words read [n, words + 1] -> vectors [n, longest, llm_width]."""
        # The tail of the posterior is noise, and summing thousands of embeddings of it costs time: keep what matters.
        top, which = merged[:, 1:].topk(min(LIKELIEST, merged.shape[1] - 1))
        ids = self.spellings[which]  # [n, LIKELIEST, longest]
        shares = top[..., None] * (ids != PADDING)
        shares = shares / shares.sum(1, keepdim=True).clamp_min(torch.finfo(shares.dtype).tiny)
        embedded = writer.embed(ids.clamp_min(0)).to(top.dtype)  # [n, LIKELIEST, longest, llm_width]
        vectors = torch.einsum("nwl,nwld->nld", shares, embedded)
        if self.residual is not None:
            # Only a state's direction: its length, hundreds of times an embedding's, would drown the words.
            directions = functional.normalize(_mean_of_runs(states, first)[spoken], dim=-1)
            vectors = vectors + self.residual(directions)[:, None]
        return vectors


def _run_starts(best: Tensor) -> Tensor:
    """Where a run of the same class begins in classes [S]: true or false [S]."""
    starts = torch.ones_like(best, dtype=torch.bool)
    starts[1:] = best[1:] != best[:-1]
    return starts


def _mean_of_runs(values: Tensor, first: Tensor) -> Tensor:
    """Values [S, ...] averaged over each run: [runs, ...]."""
    run = first.cumsum(0) - 1
    sums = values.new_zeros(int(run[-1]) + 1, values.shape[1]).index_add(0, run, values)
    return sums / run.bincount()[:, None]
