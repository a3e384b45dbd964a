"""Text the way it is said: what is spoken, what is learnt and what is compared then agree."""

import re

from num2words import num2words
from opencc import OpenCC

from train.data.chinese_numbers import spell_chinese_numbers

CLOCK = re.compile(r"(?<![\d:])([01]?\d|2[0-3]):([0-5]\d)(?![\d:])(?=(\s?[ap]\.?m)?)")
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th)?\b|\d+0s\b|\d+")
CHINESE = re.compile(r"[\u3400-\u9fff]")
SIMPLIFIED = OpenCC("t2s")  # which of the two scripts was meant cannot be heard


def spell_numbers(text: str) -> str:
    """Digits as words, the way they are said: what is spoken and what is learnt then agree.

    Chinese where the text has any, else English.
    """
    if CHINESE.search(text):
        return spell_chinese_numbers(text)

    def words(match: re.Match[str]) -> str:
        number = match[0].replace(",", "")
        if number.endswith("0s"):
            return _plural(num2words(int(number[:-1]), to="year"))
        if number[-2:].isalpha():
            return num2words(int(float(number[:-2])), to="ordinal")
        if re.fullmatch(r"1[1-9]\d\d|20\d\d", match[0]):
            return num2words(int(number), to="year")
        if len(number) > 7:
            return " ".join(num2words(int(digit)) for digit in number if digit.isdigit())
        return num2words(float(number) if "." in number else int(number))

    text = CLOCK.sub(lambda time: _clock(int(time[1]), int(time[2]), bool(time[3])), text)
    text = re.sub(r"(?<=\d):(?=\d)", " ", text)
    text = re.sub(r"(?<=[^\W\d_])(?=\d)|(?<=\d)(?=(?!(?:s|st|nd|rd|th)\b)[^\W\d_])", " ", text)  # 5pm, covid19
    return NUMBER.sub(words, text)


def _clock(hour: int, minute: int, half_of_day_follows: bool) -> str:
    words = num2words(hour)
    if minute == 0:
        return words if half_of_day_follows else f"{words} o'clock"
    return f"{words} oh {num2words(minute)}" if minute < 10 else f"{words} {num2words(minute)}"


def _plural(year: str) -> str:
    return year[:-1] + "ies" if year.endswith("y") else year + "s"


def spoken_form(text: str) -> str:
    """The words of a transcript as the connector learns to read them: lower case, numbers spelt, no punctuation.

    Casing and punctuation cannot be heard; leaving them out halves the tokens that one word may have. A Chinese
    character is a word, and simplified.
    """
    text = spell_numbers(text.replace("’", "'")).lower()
    text = re.sub(r"[-–—/_]", " ", text)
    text = re.sub(r"[^\w\s']|_", "", text)
    text = re.sub(r"(?<!\w)'|'(?!\w)", "", text)
    if CHINESE.search(text):
        text = CHINESE.sub(r" \g<0> ", SIMPLIFIED.convert(text))
    return " ".join(text.split())
