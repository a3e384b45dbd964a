"""Word error rates: what cannot be heard does not count, what was said wrongly does."""

import pytest

from train.evaluation.reading import word_error_rate


@pytest.mark.parametrize(
    ("reference", "hypothesis"),
    [
        ("Turn on the light, please!", "turn on the light please"),
        ("It costs twenty-five dollars.", "it costs $25"),
        ("two hundred and three people", "203 people"),
        ("I can't; we're late.", "i can not we are late"),
        ("the colour of the theatre", "The color of the theater"),
        ("well,   um, yes", "Well yes"),
    ],
)
def test_case_punctuation_and_numbers_do_not_count(reference: str, hypothesis: str) -> None:
    assert word_error_rate([reference], [hypothesis]) == 0


@pytest.mark.parametrize(
    ("hypothesis", "rate"),
    [
        ("turn on the light", 0),
        ("turn off the light", 1 / 4),
        ("turn on light", 1 / 4),
        ("turn on the the light", 1 / 4),
        ("", 1),
        ("a b c d e f g h", 2),
    ],
)
def test_errors_are_counted_by_the_word(hypothesis: str, rate: float) -> None:
    assert word_error_rate(["Turn on the light"], [hypothesis]) == pytest.approx(rate)


def test_the_rate_is_the_corpus_rate_not_the_mean_of_clips() -> None:
    references = ["yes", "turn on the light in the kitchen now please"]
    assert word_error_rate(references, ["no", references[1]]) == pytest.approx(1 / 10)


@pytest.mark.parametrize("empty", ["", "?!", "[music]", "um"])
def test_an_empty_reference_is_left_out(empty: str) -> None:
    assert word_error_rate(["turn on the light", empty], ["turn off the light", "words from nowhere"]) == 1 / 4


def test_lists_of_different_length_are_an_error() -> None:
    with pytest.raises(ValueError):
        word_error_rate(["a", "b"], ["a"])
