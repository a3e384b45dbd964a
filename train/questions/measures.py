"""Measures of one reply against what was wanted, as the sums from which the corpus figure is made."""

from collections.abc import Callable, Sequence
from functools import cache

import jiwer
import numpy as np
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

from train.data.spoken_form import CHINESE, SIMPLIFIED
from train.questions.bootstrap import ratio

_ENGLISH, _ANY = EnglishTextNormalizer(), BasicTextNormalizer()


def normalised(text: str) -> str:
    """Words parted by spaces, without case, punctuation and spelling variants (Radford et al. 2022, appendix C).

    A text with Chinese in it becomes simplified, and each Chinese character a word of its own: its word error rate is
    the mixed error rate that is usual for code-switched speech.
    """
    if not CHINESE.search(text):
        return _ENGLISH(text)
    spaced = CHINESE.sub(lambda match: f" {match[0]} ", SIMPLIFIED.convert(text))
    return " ".join(_ANY(spaced).split())


@cache
def words(text: str) -> tuple[str, ...]:
    """The normalised words of a text."""
    return tuple(normalised(text).split())


def word_errors(reference: str, hypothesis: str) -> list[float]:
    """Wrong, missing and added words, and the words there are; nothing when the reference normalises to nothing."""
    if not (wanted := normalised(reference)):
        return [0, 0]
    found = jiwer.process_words(wanted, normalised(hypothesis))
    return [found.substitutions + found.deletions + found.insertions, len(wanted.split())]


def character_errors(reference: str, hypothesis: str) -> list[float]:
    """The same for characters, spaces between Chinese ones left out."""
    wanted, given = (_characters(text) for text in (reference, hypothesis))
    if not wanted:
        return [0, 0]
    found = jiwer.process_characters(wanted, given)
    return [found.substitutions + found.deletions + found.insertions, len(wanted)]


def _characters(text: str) -> str:
    found = normalised(text)
    return found.replace(" ", "") if CHINESE.search(found) else found


def keyword_f1(reply: str, reference: str) -> list[float]:
    """F1 of the sets of words in two keyword lists (van Rijsbergen 1979), and 1; the order of a list says nothing."""
    given, wanted = set(words(reply)), set(words(reference))
    return [2 * len(given & wanted) / max(len(given) + len(wanted), 1), 1]


def contains(text: str, phrase: str) -> bool:
    """Whether the words of `phrase` stand one after the other in `text`."""
    searched, wanted = words(text), words(phrase)
    starts = range(len(searched) - len(wanted) + 1)
    return bool(wanted) and any(searched[start : start + len(wanted)] == wanted for start in starts)


def named(text: str, labels: dict[str, Sequence[str]]) -> list[str]:
    """The labels that `text` names in one of their forms; one inside another that is named as well does not count."""
    forms = {label: [form for form in wordings if contains(text, form)] for label, wordings in labels.items()}
    found = {label: max(there, key=len) for label, there in forms.items() if there}
    return [
        label
        for label, form in found.items()
        if not any(other != form and contains(other, form) for other in found.values())
    ]


def answers(reply: str, accepted: Sequence[str]) -> list[float]:
    """Whether the reply contains one of the accepted answers after normalisation, articles left out, and 1."""
    said = _without_articles(reply)
    return [float(any(contains(said, _without_articles(answer)) for answer in accepted)), 1]


def _without_articles(text: str) -> str:
    return " ".join(word for word in words(text) if word not in ("a", "an", "the"))


# Translation. sacrebleu's own bootstrap adds up these statistics of single sentences, too.

_BLEU, _CHRF = BLEU(tokenize="zh"), CHRF()


def bleu_statistics(reply: str, references: Sequence[str]) -> list[float]:
    """Lengths and n-gram matches of one sentence, Chinese tokenised by sacrebleu's `zh` (Papineni et al. 2002)."""
    return list(_BLEU._extract_corpus_statistics([reply], [[reference] for reference in references])[0])


def chrf_statistics(reply: str, references: Sequence[str]) -> list[float]:
    """Character n-gram matches of one sentence (Popović 2015)."""
    return list(_CHRF._extract_corpus_statistics([reply], [[reference] for reference in references])[0])


def bleu(sums: np.ndarray) -> float:
    """Corpus BLEU, 0 to 100."""
    return float(_BLEU._compute_score_from_stats([int(value) for value in sums]).score)


def chrf(sums: np.ndarray) -> float:
    """Corpus chrF, 0 to 100."""
    return float(_CHRF._compute_score_from_stats([int(value) for value in sums]).score)


COMBINE: dict[str, Callable[[np.ndarray], float]] = {"bleu": bleu, "chrf": chrf}


def combine(measure: str) -> Callable[[np.ndarray], float]:
    """How the sums of a measure become its figure."""
    return COMBINE.get(measure, ratio)
