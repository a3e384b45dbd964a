"""Transcripts as labels: which words a head can read, and how those that it cannot are spelt."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from transformers import PreTrainedTokenizerBase

from train.data.spoken_form import CHINESE, spoken_form

TWICE = 2  # a word heard once is not learnt
LONGEST = 4  # tokens of a word that is read as a whole
HALF_A_CHARACTER = "\ufffd"  # what a token that holds some of a character's bytes is decoded to


class Labeller:
    """Turns transcripts into labels; fixes which words the head can read.

    A word is one label, however many tokens write it. One that is heard too rarely to be learnt is spelt
    with tokens that are heard oftener, down to single letters: so every word can be read, also one never heard.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> None:
        """`words`: what the head reads, as in `VocabularyHead`; `tokenizer` has the pieces that spell the others."""
        self.words = tuple(words)
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.get_vocab()
        self._token_names = {token: name for name, token in self._vocabulary.items()}
        rows = tokenizer(list(words), add_special_tokens=False).input_ids if words else []
        self._tokens = {row[0]: place for place, row in enumerate(rows, 1) if len(row) == 1}
        # Of each word met so far; those that are spelt are added as they come.
        whole = {place: name for place, name in enumerate(self.words, 1) if name[:1] == " " or CHINESE.fullmatch(name)}
        self._places = {name.removeprefix(" ").lower(): [place] for place, name in whole.items()}

    @classmethod
    def from_texts(cls, tokenizer: PreTrainedTokenizerBase, texts: list[str], words: Iterable[str] = ()) -> "Labeller":
        """A head of `words`, of the words heard twice or oftener in the distinct texts, and of what spells the others.

        A word of more than `LONGEST` tokens is spelt. So is a token heard once; one that cannot be split is left out,
        and so is a Chinese character heard once, as its bytes say nothing of how it sounds.
        """
        heard = Counter(word for text in set(texts) for word in spoken_form(text).split())
        often = [word for word, count in heard.items() if count >= TWICE]
        written = {word: _shortest(tokenizer, word) for word in (*often, *words)}
        written = {word: way for word, way in written.items() if tokenizer.unk_token_id not in way[1]}
        whole = {word: name for word, (name, tokens) in written.items() if len(tokens) <= LONGEST}
        own = {tokens[0] for name, tokens in written.values() if len(tokens) == 1}  # tokens that are whole words
        labeller = cls(tokenizer, ())
        counts: Counter[int] = Counter()
        for word in (word for word in heard.keys() - whole.keys() if not CHINESE.match(word)):
            counts.update(dict.fromkeys(_encode(tokenizer, word), heard[word]))
        lengths: defaultdict[int, set[int]] = defaultdict(set)
        for token in counts:
            lengths[len(labeller._token_names[token])].add(token)
        kept = set()
        for length in range(max(lengths, default=0), 0, -1):  # the longest first: its parts are counted before theirs
            for token in lengths[length]:
                if counts[token] >= TWICE or token in own:
                    kept.add(token)
                    continue
                for part in labeller._split(token) or ():
                    counts[part] += counts[token]
                    lengths[len(labeller._token_names[part])].add(part)
        pieces = [str(tokenizer.decode([token])) for token in sorted(kept)]
        readable = [piece for piece in pieces if HALF_A_CHARACTER not in piece]
        return cls(tokenizer, tuple(dict.fromkeys([*readable, *sorted(whole.values())])))

    def __call__(self, text: str) -> list[int]:
        """Places in the vocabulary head; what it can neither read nor spell is left out."""
        return [place for word in spoken_form(text).split() for place in self._read_as(word)]

    def _read_as(self, word: str) -> list[int]:
        """A word as places in the head: its own, or those of the tokens that spell it."""
        if word not in self._places:
            tokens = _encode(self._tokenizer, word)
            self._places[word] = [self._tokens[part] for token in tokens for part in self._spell(token)]
        return self._places[word]

    def _spell(self, token: int) -> list[int]:
        """A token as tokens of the head."""
        if token in self._tokens:
            return [token]
        return [piece for part in self._split(token) or () for piece in self._spell(part)]

    def _split(self, token: int) -> tuple[int, int] | None:
        """The two tokens that spell one; None for a single letter.

        Of several ways the one whose later token comes earliest: a byte-pair vocabulary is ordered by how common
        its tokens are.
        """
        name, known = self._token_names[token], self._vocabulary
        cuts = ((name[:cut], name[cut:]) for cut in range(1, len(name)))
        ways = [(known[left], known[right]) for left, right in cuts if left in known and right in known]
        return min(ways, key=max, default=None)


def _written(word: str) -> str:
    """A word within a text: after a space, unless it is Chinese."""
    return word if CHINESE.match(word) else f" {word}"


def _encode(tokenizer: PreTrainedTokenizerBase, word: str) -> tuple[int, ...]:
    return tuple(tokenizer(_written(word), add_special_tokens=False).input_ids)


def _shortest(tokenizer: PreTrainedTokenizerBase, word: str) -> tuple[str, tuple[int, ...]]:
    """A word as it is written and its tokens, as a name where those are fewer: `Egypt`, but `may`."""
    ways = [(_written(way), _encode(tokenizer, way)) for way in (word, word.capitalize())]
    return min(ways, key=lambda way: len(way[1]))
