"""Manifests and the spoken form of transcripts: numbers become words, held-out data is refused, paths travel."""

import json
from pathlib import Path
from typing import Any

import pytest

from train.data.manifest import read_manifest, refuse_held_out, write_manifest
from train.data.spoken_form import spell_numbers, spoken_form


def entry(audio: Path, text: str | None = "hello") -> dict[str, Any]:
    return {"audio": str(audio), "text": text, "speaker": "s", "duration": 1.5, "source": "test"}


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("1984", "nineteen eighty-four"),
        ("in 1900,", "in nineteen hundred,"),
        ("2005", "two thousand and five"),
        ("1,984 people", "one thousand, nine hundred and eighty-four people"),
        ("1066", "one thousand and sixty-six"),
        ("1,000", "one thousand"),
        ("100,000th", "one hundred thousandth"),
        ("the 3rd of May", "the third of May"),
        ("21st", "twenty-first"),
        ("at 10:45", "at ten forty-five"),
        ("3.5", "three point five"),
        ("7, 8 and 9.", "seven, eight and nine."),
        ("call 5551234567", "call five five five one two three four five six seven"),
        ("at 5pm, COVID19", "at five pm, COVID nineteen"),
        ("the 90s and the 1990s", "the nineties and the nineteen nineties"),
        ("wake me at 7:00", "wake me at seven o'clock"),
        ("7:00 am or 7:05", "seven am or seven oh five"),
        ("10:15:30, odds of 3:1", "ten fifteen thirty, odds of three one"),
        ("no digits here", "no digits here"),
    ],
)
def test_numbers_are_spelt_as_they_are_said(written: str, said: str) -> None:
    assert spell_numbers(written) == said


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Turn ON the light, please!", "turn on the light please"),
        ("It’s 7—really", "it's seven really"),
        ("rock 'n' roll, 'quoted'", "rock n roll quoted"),
        ("well-known and/or_not", "well known and or not"),
        ("In 1984, 50% of   them", "in nineteen eighty four fifty of them"),
        ("Café, naïve", "café naïve"),
        ("?!", ""),
        ("今天 10:05，氣溫25度。", "今 天 十 点 零 五 分 气 温 二 十 五 度"),
        ("打开 the light！", "打 开 the light"),
    ],
)
def test_spoken_form_keeps_only_what_can_be_heard(text: str, spoken: str) -> None:
    assert spoken_form(text) == spoken


@pytest.mark.parametrize("text", ["Don't – 3rd, 10:45!", "’Tis 1,234.5", "A_b-c/d", "2024年，GB 好"])
def test_spoken_form_of_a_spoken_form_is_itself(text: str) -> None:
    assert spoken_form(spoken_form(text)) == spoken_form(text)


@pytest.mark.parametrize(
    "path",
    [
        "data/speech/dev/librispeech/manifest.jsonl",
        "data/speech/dev",
        "data/text/banking77_test.jsonl",
        "data/text/openbookqa_test.jsonl.gz",
        "data/text/clinc150_val.jsonl",
        "data/text/boolq_dev.jsonl",
        "data/text/mmlu_subset.jsonl",
        "data/librispeech_test/manifest.jsonl",
    ],
)
def test_held_out_data_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="held out"):
        refuse_held_out([Path("/data/train.jsonl"), Path("/corpora") / path])


def test_held_out_data_is_refused_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    (tmp_path / "innocent").symlink_to(tmp_path / "dev")
    with pytest.raises(ValueError, match="held out"):
        refuse_held_out([tmp_path / "innocent"])


def test_training_data_is_accepted() -> None:
    names = ["snips_train.jsonl.gz", "developers.jsonl", "latest.jsonl", "valley/manifest.jsonl", "devices/a.jsonl"]
    refuse_held_out([Path("/corpora/data/text") / name for name in names])


def test_paths_are_relative_in_the_file_and_absolute_when_read(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    entries = [entry(corpus / "000" / "a.flac"), entry(tmp_path / "elsewhere" / "b.flac", None)]
    write_manifest(corpus / "manifest.jsonl", entries)
    stored = [json.loads(line)["audio"] for line in (corpus / "manifest.jsonl").read_text("utf-8").splitlines()]
    assert [Path(audio) for audio in stored] == [Path("000/a.flac"), Path("../elsewhere/b.flac")]
    assert list(read_manifest(corpus / "manifest.jsonl")) == entries

    moved = tmp_path / "moved"
    corpus.rename(moved)
    assert next(read_manifest(moved / "manifest.jsonl"))["audio"] == str(moved / "000" / "a.flac")


def test_paths_hold_when_the_folder_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "far" / "away")
    clip = tmp_path / "clip.wav"
    clip.write_bytes(b"")
    write_manifest(tmp_path / "runs" / "manifest.jsonl", [{"audio": str(clip), "text": "hello"}])
    assert [entry["audio"] for entry in read_manifest(tmp_path / "runs" / "manifest.jsonl")] == [str(clip)]


def test_text_in_any_script_survives(tmp_path: Path) -> None:
    write_manifest(tmp_path / "m.jsonl", [entry(tmp_path / "a.flac", "打开厨房的灯 “now”\n")])
    assert "打开" in (tmp_path / "m.jsonl").read_text("utf-8")
    assert next(read_manifest(tmp_path / "m.jsonl"))["text"] == "打开厨房的灯 “now”\n"


def test_an_interrupted_write_leaves_the_old_manifest(tmp_path: Path) -> None:
    path = tmp_path / "manifest.jsonl"
    write_manifest(path, [entry(tmp_path / "old.flac")])

    def interrupted():
        yield entry(tmp_path / "new.flac")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_manifest(path, interrupted())
    assert [Path(e["audio"]).name for e in read_manifest(path)] == ["old.flac"]
    write_manifest(path, [entry(tmp_path / "new.flac")])
    assert [Path(e["audio"]).name for e in read_manifest(path)] == ["new.flac"]
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.jsonl"]
