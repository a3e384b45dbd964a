"""Words that were said too rarely are said often enough."""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest

from train.data import vocabulary
from train.data.sentences import read_sentences


def test_every_word_is_said_often_enough_and_no_more() -> None:
    spoken = ["Open the door, please.", "Close the door!", "the the the"]
    words = ["the", "door", "egypt", "narrative"]
    sentences = vocabulary.missing_sentences(spoken, words, least=4, seed=1)
    said = Counter(" ".join([*sentences, "open the door please close the door the the the"]).split())
    assert [said[word] for word in words] == [5, 4, 4, 4]  # `the` was said enough before
    assert max(len(sentence.split()) for sentence in sentences) < 2 * vocabulary.LENGTH
    assert sentences == vocabulary.missing_sentences(spoken, words, least=4, seed=1)
    assert sentences != vocabulary.missing_sentences(spoken, words, least=4, seed=2)


def test_frequent_words_are_words() -> None:
    words = vocabulary.frequent_words(5000)
    assert len(words) == len(set(words)) == 5000
    assert {"the", "i", "don't", "egypt"} <= set(words)
    assert not {"b", "2020", "é"} & set(words)


def test_the_command_writes_what_synthesize_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text(json.dumps({"audio": "a.flac", "text": "you and me and them"}) + "\n")
    out = tmp_path / "more" / "vocabulary.jsonl"
    command = ["vocabulary", str(manifest), "--out", str(out), "--words", "50", "--least", "2"]
    monkeypatch.setattr(sys, "argv", command)
    vocabulary.main()
    said = Counter(word for sentence in read_sentences([out]) for word in sentence.split())
    assert "and" not in said  # twice already
    assert said["you"] == 1 and said["of"] == 2
