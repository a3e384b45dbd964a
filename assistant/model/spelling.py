"""How words are written in tokens: by an LLM, whichever it is, and by Whisper.

The head of a connector reads words. What an LLM makes of them is its own affair: its tokenizer spells them, and its
input embeddings of those tokens are what it gets. So a checkpoint knows of no LLM.
"""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from whisper.tokenizer import get_tokenizer

from assistant.files import cache_directory, whole

PADDING = -1  # after the last token of a word that is written with fewer tokens than another
BEFORE = "\n"  # what stands before a word that is spelt: no tokenizer joins it with what follows


@dataclass(frozen=True)
class Writer:
    """An LLM as far as it writes: `embed` takes token ids [...] to input vectors [..., llm_width].

    `embed` is the LLM's own module, not its matrix: some (Gemma 3) scale what they look up.
    """

    tokenizer: PreTrainedTokenizerBase
    embed: Callable[[Tensor], Tensor]

    def spell(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text as they would stand within a longer one.

        At the beginning some tokenizers (SentencePiece, as Llama 2 has it) write a space that nobody wrote.
        """
        if not texts:
            return []
        before = self._ids([BEFORE])[0]
        rows = self._ids([BEFORE + text for text in texts])
        return [
            row[len(before) :] if row[: len(before)] == before else self._ids([text])[0]
            for row, text in zip(rows, texts, strict=True)
        ]

    def spellings(self, words: Sequence[str]) -> Tensor:
        """Token ids of each word [words, longest], then `PADDING`; kept in the cache for the next start."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return _table(lambda: self.spell(words), None if backend is None else backend.to_str(), words)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False).input_ids
        return ids


def word_rows(embeddings: Tensor, words: Sequence[str]) -> Tensor:
    """Where Whisper looks for each word [words, width], given its token embeddings [tokens, width].

    That is the embedding of the word's token, as it is or as a name; else those of its tokens, added up and brought to
    the size of one (they are close to orthogonal): with the mean, a state in the very direction of a word would be as
    near to each of the word's pieces.
    """
    vocabulary = len(embeddings)
    multilingual = vocabulary >= 51865  # as `whisper.model.Whisper` tells them apart
    encoding = get_tokenizer(multilingual, num_languages=vocabulary - 51765 - int(multilingual)).encoding

    def spell(word: str) -> list[int]:
        plain = encoding.encode_ordinary(word)
        if len(plain) == 1:
            return plain
        return min(plain, encoding.encode_ordinary(" " * word.startswith(" ") + word.strip().capitalize()), key=len)

    tokens = _table(lambda: [spell(word) for word in words], encoding.name, words).to(embeddings.device)
    written = tokens != PADDING
    counts = written.sum(1)
    starts = counts.cumsum(0) - counts
    sums = torch.nn.functional.embedding_bag(tokens[written], embeddings, starts, mode="sum")
    return sums / counts.clamp_min(1)[:, None] ** 0.5


def _table(spell: Callable[[], list[list[int]]], tokenizer: str | None, words: Sequence[str]) -> Tensor:
    """Token ids [words, longest], padded; computed once for each content of a tokenizer and each list of words."""
    path = None
    if tokenizer is not None:
        digest = hashlib.sha256("\0".join([tokenizer, *words]).encode("utf-8", "surrogatepass")).hexdigest()
        path = cache_directory() / "spellings" / f"{digest[:32]}.safetensors"
        if (known := _read(path)) is not None and len(known) == len(words):
            return known
    rows = spell()
    longest = max(1, *map(len, rows)) if rows else 1
    table = torch.tensor([[*row, *[PADDING] * (longest - len(row))] for row in rows]).reshape(len(rows), longest)
    if path is not None:
        _keep(table, path)
    return table


def _read(path: Path) -> Tensor | None:
    try:
        return load_file(path)["tokens"].long()
    except (OSError, SafetensorError, KeyError):
        return None


def _keep(table: Tensor, path: Path) -> None:
    try:
        with whole(path) as partial:
            save_file({"tokens": table.to(torch.int32)}, partial)
    except OSError:
        pass  # it takes a second longer the next time


def groups(words: Sequence[str]) -> list[slice]:
    """Which of the classes read make up one written word: those that do not begin with a space belong to the last."""
    starts = [number for number, word in enumerate(words) if number == 0 or word.startswith(" ")]
    return [slice(start, end) for start, end in itertools.pairwise([*starts, len(words)])]


def respelt(writer: Writer, words: Sequence[str], tokens: list[list[int]], vectors: list[Tensor]) -> list[Tensor]:
    """Of each word read its vectors [len(tokens), llm_width] -> the same text in the spelling the LLM was raised on.

    The head reads rare words in pieces that it has often heard (` neighb` `our` `hood`). An LLM understands its own
    spelling best: a token that was read as such keeps its vector, a mixture of what it may have been; one that was put
    together from pieces is the LLM's embedding of it.
    """
    result = []
    for part in groups(words):
        read = [token for row in tokens[part] for token in row]
        known = torch.cat(vectors[part])
        if part.stop - part.start > 1 and (spelt := writer.spell(["".join(words[part])])[0]) != read and spelt:
            known = _aligned(writer, read, known, spelt)
        result.append(known)
    return result


def _aligned(writer: Writer, read: list[int], vectors: Tensor, spelt: list[int]) -> Tensor:
    """The vectors of tokens `spelt` [n, llm_width], those that stand for the same letters in `read` kept."""
    own = writer.embed(torch.tensor(spelt, device=vectors.device)).to(vectors.dtype)
    names, spelt_names = (writer.tokenizer.convert_ids_to_tokens(ids) for ids in (read, spelt))
    if "".join(names) != "".join(spelt_names):
        return own
    places = {}  # (first letter, last letter, token) -> which was read there
    end = 0
    for number, (token, name) in enumerate(zip(read, names, strict=True)):
        start, end = end, end + len(name)
        places[start, end, token] = number
    rows, end = [], 0
    for token, name, vector in zip(spelt, spelt_names, own, strict=True):
        start, end = end, end + len(name)
        same = places.get((start, end, token))
        rows.append(vector if same is None else vectors[same])
    return torch.stack(rows)
