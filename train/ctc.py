"""The CTC form of stage 1: the connector learns to read the LLM's own tokens; neither encoder nor LLM runs."""

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable

import jiwer
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedTokenizerBase
from wordfreq import top_n_list

from assistant.connector import BLANK, QFormerConnector, pad_features
from train.features import Sample
from train.manifest import spoken_form


class Labeller:
    """Turns transcripts into labels; fixes which LLM tokens the head can read.

    A token that is heard too rarely to be learnt is spelt with shorter ones that are heard often, down to single
    letters: `Ġneighbourhood` is read as `Ġneighb` `our` `hood`. So every word can be read, also one never heard.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, token_ids: list[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = tokenizer.get_vocab()
        self._names = {token: name for name, token in self._vocabulary.items()}
        self.token_ids = token_ids
        self._index = {token: position + 1 for position, token in enumerate(token_ids)}
        self._cache: dict[str, list[int]] = {}

    @classmethod
    def from_texts(
        cls, tokenizer: PreTrainedTokenizerBase, texts: list[str], words: Iterable[str] = (), least: int = 2
    ) -> "Labeller":
        """A head of the tokens heard at least `least` times in the distinct texts, spelling the rarer ones included.

        A token that cannot be split is kept if it is heard twice; `words` of one token are kept unheard.
        """
        labeller = cls(tokenizer, [])
        counts = Counter(token for text in set(texts) for token in _encode(tokenizer, text))
        lengths: defaultdict[int, set[int]] = defaultdict(set)
        for token in counts:
            lengths[len(labeller._names[token])].add(token)
        kept = {tokens[0] for word in words if len(tokens := _encode(tokenizer, word)) == 1}
        for length in range(max(lengths, default=0), 0, -1):  # the longest first: its parts are counted before theirs
            for token in lengths[length]:
                parts = labeller._split(token) if counts[token] < least and token not in kept else None
                for part in parts or ():
                    counts[part] += counts[token]
                    lengths[len(labeller._names[part])].add(part)
                if parts is None and counts[token] >= min(least, 2):
                    kept.add(token)
        return cls(tokenizer, sorted(kept))

    def __call__(self, text: str) -> list[int]:
        """Places in the vocabulary head; tokens of the transcript that it can neither read nor spell are left out."""
        if text not in self._cache:
            tokens = _encode(self._tokenizer, text)
            self._cache[text] = [self._index[part] for token in tokens for part in self._spell(token)]
        return self._cache[text]

    def _spell(self, token: int) -> list[int]:
        """A token as tokens of the head."""
        if token in self._index:
            return [token]
        return [piece for part in self._split(token) or () for piece in self._spell(part)]

    def _split(self, token: int) -> tuple[int, int] | None:
        """The two tokens that spell one; None for a single letter.

        Of several ways the one whose later token comes earliest: a byte-pair vocabulary is ordered by how common
        its tokens are.
        """
        name, known = self._names[token], self._vocabulary
        cuts = ((name[:cut], name[cut:]) for cut in range(1, len(name)))
        ways = [(known[left], known[right]) for left, right in cuts if left in known and right in known]
        return min(ways, key=max, default=None)


def common_words() -> list[str]:
    """The most frequent words of English, which a head can read whether or not its training speech says them."""
    return list(top_n_list("en", 20_000))


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    spoken = spoken_form(text)
    return tokenizer(" " + spoken, add_special_tokens=False).input_ids if spoken else []


class CtcModel(nn.Module):
    """The connector with its loss."""

    def __init__(self, connector: QFormerConnector) -> None:
        super().__init__()
        self.connector = connector

    def forward(self, features: Tensor, lengths: Tensor, labels: list[list[int]]) -> dict[str, Tensor]:
        """CTC loss (per label) of a padded batch [B, T, width]."""
        states, lengths = self.connector.hidden(features, lengths)
        return {"loss": ctc(self.connector.project(states), lengths, labels)}


def ctc(logits: Tensor, lengths: Tensor, targets: list[list[int]]) -> Tensor:
    """Mean CTC loss per label of logits [B, S, classes]; targets that cannot fit count as nothing."""
    return functional.ctc_loss(
        logits.float().log_softmax(-1).transpose(0, 1),
        torch.tensor([index for target in targets for index in target], device=logits.device),
        lengths,
        torch.tensor([len(target) for target in targets], device=logits.device),
        blank=BLANK,
        zero_infinity=True,
    )


def held_out(text: str) -> bool:
    """One sentence in a hundred is kept for validation, in whatever voice and copy it appears; silence never is."""
    spoken = spoken_form(text)
    return bool(spoken) and zlib.crc32(spoken.encode()) % 100 == 0


@torch.inference_mode()
def reading_error(connector: QFormerConnector, samples: list[Sample], tokenizer: PreTrainedTokenizerBase) -> float:
    """Word error rate of the greedy reading; not a number when there is nothing to read."""
    spoken = [sample for sample in samples if sample.text]
    if not spoken:
        return float("nan")
    device = next(connector.parameters()).device
    read = []
    for sample in spoken:
        features, lengths = pad_features([sample.features.float().to(device)])
        read.append(str(tokenizer.decode(connector.tokens(features, lengths)[0])))
    return float(jiwer.wer([spoken_form(s.text) for s in spoken], [spoken_form(text) for text in read]))
