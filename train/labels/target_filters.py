"""Which targets are worth training on: one reason for each that is not, named after what is wrong with it."""

import re
from difflib import SequenceMatcher

from assistant.model.completion import Completion
from train.data.spoken_form import CHINESE, spoken_form
from train.labels.instructions import Task

FINAL_PUNCTUATION = re.compile(r"[.!?…。！？~～][\"'”’」』)）\]]*$")
LATIN_WORD = re.compile(r"[A-Za-zÀ-ÿ]+(?:['’][A-Za-z]+)?")
REFUSAL = re.compile(
    r"\bas an ai\b|\bai (language )?(model|assistant)\b|\blanguage model\b|\bi('m| am) (not able|unable) to\b"
    r"|\bi(?:'m| am) sorry,? (?:but )?(?:i|as|there)\b|\bi (?:cannot|can't|can not|don't have the ability to) "
    r"(?:\w+ )?(?:assist|help|provide|answer|fulfil|discuss|generate|repeat|translate|process|access|perform)"
    r"|(?:could|can) you (?:please )?(?:provide|clarify)|please provide"
    r"|provide (?:me with )?(?:more|the) (?:information|context|text)"
    r"|作为(?:一个|一名)?(?:人工智能|AI|语言模型)|人工智能助手|(?:对不起|抱歉)[，,]?(?:但)?我|我(?:无法|不能|没有办法)|请提供",
    re.IGNORECASE,
)
CODE = re.compile(r"```|\bimport \w+|\bdef \w+\(|</?\w+>|[{}\\]|https?://")
SAME = 0.85  # similarity from which two texts say the same


def language_of(text: str) -> str:
    """`chinese` or `english`: which of the two scripts most of the words are in; one Chinese character is a word."""
    return "chinese" if len(CHINESE.findall(text)) > len(LATIN_WORD.findall(text)) else "english"


def rejection(task: Task, instruction: str, text: str, language: str, completion: Completion) -> str | None:
    """Why the LLM's target for `text`, speech in `language`, is of no use; None when it is.

    Truncated targets are recognised as in Self-Powered LSM's own data (their last character is no punctuation), but
    only where a task asks for whole sentences, and by the token limit everywhere.
    """
    target = completion.text.strip()
    said, answered = _letters(text), _letters(target)
    expected = ("english" if language == "chinese" else "chinese") if task.reply == "other language" else language
    if not answered:
        return "empty"
    if not completion.ended or (task.full_sentences and not FINAL_PUNCTUATION.search(target)):
        return "truncated"
    if REFUSAL.search(target) and not REFUSAL.search(text):
        return "refusal"
    if CODE.search(target) and not CODE.search(text):
        return "code"
    if len(_letters(instruction)) > 3 and _letters(instruction) in answered and _letters(instruction) not in said:
        return "instruction leaked"
    if task.repeats:
        return None if said in answered or _alike(said, answered) else "not repeated"
    if _alike(said, answered):
        return "echo"
    if language_of(target) != expected:
        return "wrong language"
    return None


def _letters(text: str) -> str:
    return spoken_form(text).replace(" ", "")


def _alike(first: str, second: str) -> bool:
    return SequenceMatcher(None, first, second, autojunk=False).ratio() >= SAME
