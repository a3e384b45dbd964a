"""Word error rates: what cannot be heard does not count, what was said wrongly does."""

import json
import sys
from pathlib import Path

import pytest

from train.evaluation import reading
from train.evaluation.reading import labels, word_error_rate


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


def test_sets_of_the_same_name_have_rows_of_their_own() -> None:
    manifests = [
        "/a/dev/manifest.jsonl",
        "/b/dev/manifest.jsonl",
        "/b/x/one.jsonl",
        "/b/x/two.jsonl",
        "/c/manifest.jsonl",
    ]
    assert labels([Path(path) for path in manifests]) == ["a/dev", "b/dev", "one", "two", "c"]
    assert len(set(labels([Path("/a/x.jsonl"), Path("/a/x.jsonl.gz"), Path("/a/x/manifest.jsonl")]))) == 3


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([{"audio": "a.wav"}, {"audio": "b.wav", "text": ""}], "No entry of .* has a text"),
        ([{"audio": "a.wav", "text": 3}], 'line 1: "text" must be'),
        ([], "No entry of .* has a text"),
    ],
)
def test_a_manifest_that_cannot_be_read_with_ends_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lines: list[dict[str, object]], said: str
) -> None:
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    monkeypatch.setattr(sys, "argv", ["reading", str(tmp_path)])
    with pytest.raises(SystemExit, match=said):
        reading.main()
