"""Does a reply do what its instruction asks? One rule for each task; whether the reply is right is measured elsewhere.

A rule names the first thing that is wrong, so that a figure can be traced to its replies. All thresholds stand here.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from assistant.lanes.lane import NOTHING_HEARD
from train.data.spoken_form import CHINESE
from train.labels.target_filters import REFUSAL, language_of
from train.questions.measures import named, words

SAME = 0.7  # overlap from which a reply says again what was said
FEWEST_NEW = 3  # words that a continuation adds
LONGEST_PHRASE = 40  # words of an answer that was asked for in a sentence or a few words
LONGEST_ANSWER = 120  # words of a spoken reply
SAYS_NOTHING = re.compile(
    r"\b(no|not|nothing|never|cannot|without)\b[^.!?]{0,40}\b(hear|heard|speech|spoke|spoken|said|words?|sounds?|voice)\b"
    r"|n't[^.!?]{0,20}\b(hear|catch)\b|\bsilen(t|ce)\b|(没有?|未|不)[^。！？]{0,8}(听|声音|说话|语音)",
    re.IGNORECASE,
)
SAYS_AGAIN = ("recognition", "repetition")
SENTIMENTS: dict[str, Sequence[str]] = {
    "positive": ("positive", "积极"),
    "negative": ("negative", "消极"),
    "neutral": ("neutral", "中性"),
}


@dataclass(frozen=True)
class Case:
    """A reply and what it replies to.

    `text` is what was said and `heard` what the system took it for: a system that repeats what it misheard does as it
    was told. `labels` are those that the instruction offers, each with the forms that name it.
    """

    task: str
    reply: str
    text: str
    heard: str | None = None
    ended: bool = True
    labels: dict[str, Sequence[str]] = field(default_factory=dict)

    @property
    def overlap(self) -> float:
        """How much of reply and speech is the same words in the same order: 2 x matches / words of both, 0 to 1."""
        return max(
            SequenceMatcher(None, words(said), words(self.reply), autojunk=False).ratio()
            for said in (self.text, self.heard or "")
        )

    @property
    def new_words(self) -> int:
        """How many words of the reply were neither said nor heard."""
        return len([word for word in words(self.reply) if word not in words(self.text) + words(self.heard or "")])


def merely_transcribed(case: Case) -> bool:
    """Speech anchor bias (Self-Powered LSM, arXiv 2410.03798, section 2): the speech comes back, whatever was asked.

    A continuation may say the speech again if it goes on from there, and keywords may be most of a short sentence.
    """
    if case.task in SAYS_AGAIN or not words(case.reply):
        return False
    if case.task == "continuation" and case.new_words >= FEWEST_NEW:
        return False
    if case.task == "keywords" and len(items := _items(case.reply)) > 2 and _are_keywords(items):
        return False
    return case.overlap >= SAME


def failure(case: Case) -> str | None:
    """Why the reply does not do what its task asks; None when it does."""
    if not words(case.reply):
        return "empty"
    if case.reply == NOTHING_HEARD:
        return "nothing was heard"
    if REFUSAL.search(case.reply) and not REFUSAL.search(case.text):
        return "refuses, or asks for the text"
    if merely_transcribed(case):
        return "merely transcribed"
    return RULES[case.task](case)


def says_again(case: Case) -> str | None:
    """Recognition and repetition: the words that were said (or that it heard), and hardly anything else."""
    return None if case.overlap >= SAME else "does not say the same"


def names_intent(case: Case) -> str | None:
    """Intent: one of the labels when some are offered; otherwise a phrase or sentence in the speech's language."""
    if case.labels:
        return names_one_label(case)
    if len(words(case.reply)) > LONGEST_PHRASE:
        return "too long"
    return same_language(case)


def names_one_label(case: Case) -> str | None:
    """Sentiment and multiple choice: exactly one of the labels; to list them all decides nothing."""
    found = named(case.reply, case.labels)
    return None if len(found) == 1 else "names no label" if not found else "names several labels"


def lists_keywords(case: Case) -> str | None:
    """Keywords: at most ten short items, parted by commas or lines, most of them words of the speech."""
    items = _items(case.reply)
    given, said = [word for item in items for word in item], {*words(case.text), *words(case.heard or "")}
    if not _are_keywords(items):
        return "not a list of keywords"
    if sum(word in said for word in given) < 0.6 * len(given):
        return "words that were not said"
    return None


def _items(reply: str) -> list[tuple[str, ...]]:
    return [words(item) for item in re.split(r"[,，、；;\n]", reply) if words(item)]


def _are_keywords(items: list[tuple[str, ...]]) -> bool:
    """Whether the items are few and short: four words, or eight Chinese characters."""
    return len(items) <= 10 and all(len(item) <= (8 if CHINESE.search("".join(item)) else 4) for item in items)


def translates(case: Case) -> str | None:
    """Translation: in the other language, and neither far shorter nor far longer than what was said."""
    if language_of(case.reply) == language_of(case.text):
        return "not translated"
    share = len(words(case.reply)) / max(len(words(case.text)), 1)
    return None if 0.3 <= share <= 6 else "too short" if share < 0.3 else "too long"


def continues(case: Case) -> str | None:
    """Continuation: some words that were not said, in the language of the speech."""
    if case.new_words < FEWEST_NEW:
        return "adds nothing"
    return answers_speaker(case)


def answers_speaker(case: Case) -> str | None:
    """Answer: in the language of the speech, of a length that one can listen to, and finished."""
    if len(words(case.reply)) > LONGEST_ANSWER or not case.ended:
        return "too long"
    return same_language(case)


def same_language(case: Case) -> str | None:
    """Part of other rules: reply and speech share a language; for speech in two, either will do."""
    mixed = bool(CHINESE.search(case.text)) and any(word.isascii() for word in words(case.text))
    return None if mixed or language_of(case.reply) == language_of(case.text) else "in another language"


RULES: dict[str, Callable[[Case], str | None]] = {
    "recognition": says_again,
    "repetition": says_again,
    "intent": names_intent,
    "sentiment": names_one_label,
    "keywords": lists_keywords,
    "translation": translates,
    "continuation": continues,
    "answer": answers_speaker,
}


def says_nothing_was_heard(reply: str) -> bool:
    """What a reply to a recording without speech should do: say so, in whatever words, English or Chinese."""
    return bool(SAYS_NOTHING.search(reply))
