"""Spoken conversations: what is kept, how it is spoken, what is counted; the same command writes the same files."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from assistant.files import ROOT, read_json_lines
from assistant.sound.audio import SAMPLE_RATE
from train.data.chinese_numbers import spell_chinese_numbers
from train.data.manifest import read_manifest
from train.labels import conversations
from train.labels.conversations import clean
from train.synthesis import engines

EXAMPLES = ROOT / "assets" / "examples" / "conversations.json"


def dialogue(*turns: str, first: str = "human") -> dict[str, Any]:
    roles = ["human", "gpt"] if first == "human" else ["gpt", "human"]
    return {"id": "x", "conversations": [{"from": roles[i % 2], "value": value} for i, value in enumerate(turns)]}


def run(monkeypatch: pytest.MonkeyPatch, source: Path, out: Path) -> None:
    """The command line, in this process so that engines can be replaced."""
    monkeypatch.setattr(conversations, "shared_out", lambda work, jobs, *more, **options: map(work, jobs))
    monkeypatch.setattr(sys, "argv", ["conversations", str(source), "--out", str(out), "--processes", "1"])
    conversations.main()


# What is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "said", "reply"),
    [
        ("code", "What does `len(x)` do?", "It counts."),
        ("code", "How do I print?", "```python\nprint('hello')\n```"),
        ("code", "Make a heading", "<h1>Hello</h1>"),
        ("address", "Open https://example.com for me", "Done."),
        ("address", "Who is at example.org", "Nobody."),
        ("address", "Write to me", "Mail bob@example.net"),
        ("symbols", "Hello", "***** look here !!!! ((((("),
        ("symbols", "What is a--b**c//d##e", "No idea."),
        ("unreadable", "Как дела?", "Fine."),
        ("unreadable", "I feel \ufffd\ufffd\ufffd today", "Me too."),
        ("too long", "word " * 61, "Yes."),
        ("too long", "你" * 61, "好。"),
        ("empty turn", " … ", "Yes?"),
        ("empty answer", "Are you there?", ""),
        ("empty answer", "Are you there?", "N/A"),
        ("refusing answer", "How are you?", "As an AI language model, I have no feelings."),
    ],
)
def test_a_bad_exchange_ends_the_conversation_and_is_counted(reason: str, said: str, reply: str) -> None:
    dropped: Counter[str] = Counter()
    good = ("What time is it?", "It is noon.")
    assert clean(dialogue(said, reply, *good), "test", dropped) is None
    kept = clean(dialogue(*good, said, reply, "And now?", "Later."), "test", dropped)
    assert kept is not None and kept.exchanges == [good]
    assert dropped == {reason: 2}


@pytest.mark.parametrize(
    ("said", "reply"),
    [
        ("It costs $5, doesn't it?", "Yes: five dollars & ten cents (about 20% off)!"),
        ("List two fruits.", "1. Apples\n2. Pears"),
        ("What's 3 - 1?", "Two."),
        ("今天是2024年5月1日吗？", "是的，今天是“劳动节”。"),
        ("Can you return the book to the class tomorrow?", "Of course (if the library is open)."),
    ],
)
def test_everyday_text_is_kept(said: str, reply: str) -> None:
    kept = clean(dialogue(said, reply), "test", dropped := Counter())
    assert kept is not None and kept.exchanges == [(said, reply)] and not dropped


def test_openings_and_broken_dialogues() -> None:
    dropped: Counter[str] = Counter()
    kept = clean(dialogue("Welcome back.", "Thank you.", "What next?", first="gpt"), "test", dropped)
    assert kept is not None and kept.exchanges == [("Thank you.", "What next?")]
    system = dialogue("Hello.", "Hi.")
    system["conversations"].insert(0, {"from": "system", "value": "Be kind."})
    assert clean(system, "test", dropped) is not None
    for broken in (None, {}, {"conversations": "Hello"}, {"conversations": [{"from": "human"}]}):
        assert clean(broken, "test", dropped) is None
    assert clean(dialogue("Hello."), "test", dropped) is None
    twice = dialogue("Hello.", "Hi.")
    twice["conversations"][1]["from"] = "human"
    assert clean(twice, "test", dropped) is None
    assert dropped == {"not a dialogue": 4, "no exchange": 1, "turns out of order": 1}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2024年5月12日", "二零二四年五月十二日"),
        ("早上8:30，10:00和8:05", "早上八点三十分，十点和八点零五分"),
        ("3.5公斤，100%", "三点五公斤，百分之一百"),
        ("12,345元", "一万二千三百四十五元"),
        ("110、20、1005、1010、215", "一百一十、二十、一千零五、一千零一十、二百一十五"),
        ("1200万", "一千二百万"),
        ("13812345678", "一三八一二三四五六七八"),
    ],
)
def test_chinese_numbers_are_spelt_as_they_are_said(written: str, said: str) -> None:
    assert spell_chinese_numbers(written) == said


# What is written --------------------------------------------------------------------------------------------------


def test_the_examples_are_spoken_in_both_languages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not engines.available("espeak"):
        pytest.skip("espeak-ng is not installed")
    dialogues = json.loads(EXAMPLES.read_text("utf-8"))
    assert len(dialogues) == 20
    for name in ("first", "second"):
        run(monkeypatch, EXAMPLES, tmp_path / name)
    shown = capsys.readouterr().out
    exchanges = [len(d["conversations"]) // 2 for d in dialogues]
    english, chinese = sum(exchanges[:10]), sum(exchanges[10:])
    assert f"| conversations | 20 | {english + chinese} | {english} | {chinese} |" in shown
    assert "dropped: none" in shown

    for name in ("manifest.jsonl", "conversations.jsonl"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    clips = read_manifest(tmp_path / "first")
    speakers = set()
    for line, source in zip(read_json_lines(tmp_path / "first" / "conversations.jsonl"), dialogues, strict=True):
        assert line["id"] == source["id"] and line["id"].startswith(line["language"])
        said, replies = line["turns"][::2], line["turns"][1::2]
        assert [turn["reply"] for turn in replies] == [t["value"] for t in source["conversations"][1::2]]
        spoken = [next(clips) for _ in said]
        assert [clip["text"] for clip in spoken] == [turn["text"] for turn in said]
        assert len({clip["speaker"] for clip in spoken}) == 1
        speakers.add(spoken[0]["speaker"])
        for clip in spoken:
            found = soundfile.info(clip["audio"])
            assert found.samplerate == SAMPLE_RATE and found.duration == pytest.approx(clip["duration"], abs=1e-3)
            words = len(clip["text"]) / 3 if line["language"] == "chinese" else len(clip["text"].split())
            assert 0.1 < clip["duration"] / words < 1.5
            assert not any(character.isdigit() for character in clip["text"])
            assert ("cmn" in clip["speaker"]) == (line["language"] == "chinese")
            other = tmp_path / "second" / Path(clip["audio"]).relative_to(tmp_path / "first")
            assert other.read_bytes() == Path(clip["audio"]).read_bytes()
    assert next(clips, None) is None and len(speakers) > 6


def test_what_was_spoken_is_kept_and_what_cannot_be_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken: list[str] = []

    def noise(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
        spoken.append(text)
        samples = np.random.default_rng(seed).uniform(-0.5, 0.5, 100 if "mute" in text else 8000)
        return samples.astype(np.float32), SAMPLE_RATE

    monkeypatch.setattr(engines, "ENGINES", dict.fromkeys(engines.ENGINES, noise))
    source = tmp_path / "two.json"
    source.write_text(json.dumps([dialogue("Good day.", "Hello."), dialogue("Be mute.", "Yes.")]))
    run(monkeypatch, source, tmp_path / "out")
    run(monkeypatch, source, tmp_path / "out")
    assert sorted(spoken) == ["Be mute.", "Be mute.", "Good day."]
    assert "| two | 1 | 1 | 1 | 0 |" in capsys.readouterr().out
    assert len(list(read_json_lines(tmp_path / "out" / "conversations.jsonl"))) == 1
    assert [clip["text"] for clip in read_manifest(tmp_path / "out")] == ["Good day."]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.json", "{", "cannot be read as JSON"),
        ("a.json", "{}", "must hold a JSON list"),
        ("missing.json", None, "cannot be read"),
        ("a_test.json", "[]", "held out"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    text: str | None,
    said: str,
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, tmp_path / name, tmp_path / "out")
    assert stopped.value.code == 2 and said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
