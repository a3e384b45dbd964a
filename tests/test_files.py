"""Files are whole or absent, lines are objects or named, and what a program needs is offered without loading models."""

import argparse
import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import assistant
from assistant.files import ROOT, exists, matching, printable, read_json_lines, whole, write_json_lines, write_text
from train.command_line import Files


def test_a_file_is_whole_or_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.json"
    write_text(path, "first")

    def broken() -> None:
        with whole(path) as partial:
            partial.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        broken()
    assert path.read_text() == "first" and list(path.parent.iterdir()) == [path]
    write_text(path, "第二")
    assert path.read_text("utf-8") == "第二"


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_lines_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    rows = [{"text": "你好"}, {"text": "hello", "duration": 1.5}]
    write_json_lines(tmp_path / "rows.jsonl", rows)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / "rows.jsonl").read_bytes() + b"\n  \n"))
    assert list(read_json_lines(tmp_path / name)) == rows


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": 1}\n{"a":', "line 2 is not JSON"),
        (b'{"a": 1}\n\n[1]\n', "line 3 is not a JSON object"),
        (b'{"a": "\xff"}\n', "is no text in UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=f"rows.jsonl.*{said}"):
        list(read_json_lines(tmp_path / "rows.jsonl"))


def test_what_a_program_needs_is_there_and_costs_nothing_until_it_is_used() -> None:
    for name in assistant.__all__:
        assert getattr(assistant, name).__name__ == name
    with pytest.raises(AttributeError, match="'sing'"):
        assistant.sing  # noqa: B018
    probe = "import assistant, sys; print(sorted({'torch', 'numpy', 'gradio', 'transformers'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with files whose names are hard."""
    for name in ("a.wav", "b.wav", "take[1].wav", "take1.wav", ".hidden.wav", "odd [x]/c.wav", "odd [x]/deep/d.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("a.wav", ["a.wav"]),
        ("?.wav", ["a.wav", "b.wav"]),
        ("[ab].wav", ["a.wav", "b.wav"]),
        ("./*.wav", ["a.wav", "b.wav", "take1.wav", "take[1].wav"]),
        ("take[1].wav", ["take[1].wav"]),
        ("odd [x]/*.wav", ["odd [x]/c.wav"]),
        ("odd*/*.wav", ["odd [x]/c.wav"]),
        ("odd [x]/**/*.wav", ["odd [x]/c.wav", "odd [x]/deep/d.wav"]),
        ("nothing*.flac", ["nothing*.flac"]),
        ("missing.wav", ["missing.wav"]),
        ("no\0name*", ["no\0name*"]),
        ("x" * 5000 + "*", ["x" * 5000 + "*"]),
    ],
)
def test_a_pattern_that_the_shell_left_means_files(folder: Path, given: str, meant: list[str]) -> None:
    assert matching(Path(given)) == [Path(one) for one in meant]
    if "\0" not in given:
        assert matching(folder / given) == [folder / one for one in meant]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_file_that_is_called_like_a_pattern_comes_first(folder: Path) -> None:
    (folder / "*.wav").touch()
    assert matching("*.wav") == [Path("*.wav")]


def test_commands_of_training_expand_patterns_and_leave_other_words(folder: Path) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", type=Path, nargs="+", action=Files)
    parser.add_argument("--names", nargs="+", action=Files)
    options = parser.parse_args(["?.wav", "b.wav", "--names", "hub://some/data", "t*.wav"])
    assert options.sets == [Path("a.wav"), Path("b.wav"), Path("b.wav")]
    assert options.names == ["hub://some/data", "take1.wav", "take[1].wav"]


def test_no_terminal_obeys_what_is_shown_and_json_keeps_its_meaning() -> None:
    assert printable(Path("会议 👂.wav")) == "会议 👂.wav"
    assert printable("a\nb\x1b[2J\u202e\u2028\udcff") == "a\\nb\\u001b[2J\\u202e\\u2028\\udcff"
    row = {"audio": "a\x85\u2028\udcff\U000e0001.wav", "text": "你好\n"}
    line = printable(json.dumps(row, ensure_ascii=False))
    assert len(line.splitlines()) == 1 and line.isprintable() and json.loads(line) == row


@pytest.mark.parametrize("name", ["", "x" * 5000, "a\0b"])
def test_a_name_that_nothing_can_have_is_not_there(tmp_path: Path, name: str) -> None:
    assert exists(tmp_path) and not exists(tmp_path / "x" / name)
