"""Digits in Chinese text as the characters that are said."""

import re

DIGITS = "零一二三四五六七八九"


def spell_chinese_numbers(text: str) -> str:
    """Years and long numbers digit by digit, times and percentages as read, all else with its units (up to 亿)."""
    text = re.sub(r"(?<=\d)[,，](?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\d{4}(?=\s*年)|\d{9,}", lambda match: _digits(match[0]), text)
    text = re.sub(r"(\d{1,2})[:：](\d{2})", lambda match: _time(int(match[1]), int(match[2])), text)
    text = re.sub(r"(\d+(?:\.\d+)?)[%％]", lambda match: f"百分之{_number(match[1])}", text)
    return re.sub(r"\d+(?:\.\d+)?", lambda match: _number(match[0]), text)


def _digits(digits: str) -> str:
    return "".join(DIGITS[int(digit)] for digit in digits)


def _time(hours: int, minutes: int) -> str:
    past = "" if minutes == 0 else f"{'零' if minutes < 10 else ''}{_integer(minutes)}分"
    return f"{_integer(hours)}点{past}"


def _number(number: str) -> str:
    whole, _, fraction = number.partition(".")
    return _integer(int(whole)) + (f"点{_digits(fraction)}" if fraction else "")


def _integer(number: int) -> str:
    """An integer below a thousand million."""
    for size, unit in ((10**8, "亿"), (10**4, "万"), (1000, "千"), (100, "百"), (10, "十")):
        if number >= size:
            head, rest = divmod(number, size)
            zero = "零" if 0 < rest < size // 10 else ""
            first = "" if size == 10 and head == 1 else _integer(head)
            tail = _integer(rest) if rest else ""
            # Within a number ten is 一十: 110 is 一百一十.
            if size > 10 and 10 <= rest < 20:
                tail = "一" + tail
            return f"{first}{unit}{zero}{tail}"
    return DIGITS[number]
