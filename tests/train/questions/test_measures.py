"""Measures against values worked out by hand, and the bootstrap against what must hold of it."""

import math

import numpy as np
import pytest
import sacrebleu

from train.questions import measures
from train.questions.bootstrap import interval, ratio, ratio_of_ratios

LABELS = {"play music": ("play music",), "reminder": ("reminder",), "reminder update": ("reminder update",)}


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "count"),
    [
        ("Turn on the light.", "turn off light", 2, 4),
        ("twenty-five dollars", "$25", 0, 1),
        ("今天天气很好。", "今天天氣很好", 0, 6),  # either script
        ("今天天气很好", "今天很好", 2, 6),
        ("我要参加一个 meeting", "我要参加一个会议", 2, 7),  # a Chinese character and an English word count one each
        ("", "words from nowhere", 0, 0),
    ],
)
def test_word_errors(reference: str, hypothesis: str, errors: int, count: int) -> None:
    assert measures.word_errors(reference, hypothesis) == [errors, count]


def test_character_errors() -> None:
    assert measures.character_errors("the cat", "the bat") == [1, 7]
    assert measures.character_errors("我想 喝茶", "我想喝水") == [1, 4]
    assert measures.character_errors("?!", "a") == [0, 0]


def test_keyword_f1() -> None:
    # Two of three words of the reply are among the four wanted: precision 2/3, recall 1/2.
    assert measures.keyword_f1("Paris, museum, rain", "museum; Paris, visit, summer")[0] == pytest.approx(4 / 7)
    assert measures.keyword_f1("a, b", "b, a") == [1, 1]
    assert measures.keyword_f1("", "words") == [0, 1]


def test_named_labels() -> None:
    assert measures.named("The intent is: Play Music.", LABELS) == ["play music"]
    assert measures.named("reminder update", LABELS) == ["reminder update"]
    assert measures.named("reminder or play music", LABELS) == ["play music", "reminder"]
    assert measures.named("replay musicians", LABELS) == []
    assert measures.named("这句话是积极的。", {"positive": ("positive", "积极")}) == ["positive"]


@pytest.mark.parametrize(
    ("reply", "accepted", "right"),
    [
        ("It was sung by Meghan Trainor.", ["Meghan Trainor"], 1),
        ("dealer", ["The dealer"], 1),
        ("In the year 1893", ["19 September 1893", "1893"], 1),
        ("I think it was Elvis", ["Meghan Trainor"], 0),
        ("Trainor Meghan", ["Meghan Trainor"], 0),
        ("", ["pleura"], 0),
    ],
)
def test_answers(reply: str, accepted: list[str], right: int) -> None:
    assert measures.answers(reply, accepted) == [right, 1]


def test_translation_is_that_of_sacrebleu() -> None:
    replies = ["今天是个好天气。", "他住在东京的一个小房子里。", "我不知道"]
    references = [["今天天气很好。", "今天是好天气。"], ["他住在东京的小房子里。"], ["我不知道。"]]
    padded = [
        [several[0] for several in references],
        [several[1] if len(several) > 1 else None for several in references],
    ]
    expected = sacrebleu.corpus_bleu(replies, padded, tokenize="zh").score
    sums = np.sum([measures.bleu_statistics(*pair) for pair in zip(replies, references, strict=True)], axis=0)
    assert 10 < measures.combine("bleu")(sums) == pytest.approx(expected)
    sums = np.sum([measures.chrf_statistics(*pair) for pair in zip(replies, references, strict=True)], axis=0)
    assert measures.combine("chrf")(sums) == pytest.approx(sacrebleu.corpus_chrf(replies, padded).score)


def test_the_figure_is_that_of_the_corpus_and_inside_its_interval() -> None:
    statistics = [[1, 1], [0, 9], [3, 10], [2, 4]]
    value, low, high = interval(statistics)
    assert value == pytest.approx(6 / 24)
    assert 0 <= low < value < high <= 1


def test_the_interval_is_the_same_every_time_and_narrows_with_more_clips() -> None:
    few = [[index % 2, 1] for index in range(20)]
    assert interval(few) == interval(few)
    (_, low, high), (_, lower, higher) = interval(few * 20), interval(few)
    assert high - low < (higher - lower) / 3
    # A share of one half over 20 clips: 1.96 standard errors are 0.22.
    assert higher - lower == pytest.approx(0.44, abs=0.08)


def test_no_spread_and_nothing_to_divide_by() -> None:
    assert interval([[1, 1]] * 5) == (1, 1, 1)
    assert all(math.isnan(number) for number in interval([[0, 0]] * 5))


def test_ratio_of_ratios() -> None:
    assert ratio_of_ratios(np.array([3, 10, 6, 10])) == pytest.approx(0.5)
    assert math.isnan(ratio_of_ratios(np.array([3, 10, 0, 10])))
    assert ratio(np.array([1, 4])) == 0.25
