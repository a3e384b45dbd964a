"""Files are whole or absent, lines are objects or named, and what a program needs is offered without loading models."""

import argparse
import gzip
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import assistant
from assistant.files import (
    ROOT,
    exists,
    matching,
    printable,
    read_json_lines,
    read_log,
    read_text,
    whole,
    whole_folder,
    write_json_lines,
    write_text,
)
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
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2 is no text in UTF-8"),
        ('{"a": 1}\n'.encode("utf-16"), "line 1 is no text in UTF-8 but in UTF-16"),
        ('{"a": 1}\n'.encode("utf-16-be"), "line 1 is no text in UTF-8 but in UTF-16"),
        (b'{"a": "\\ud83d"}\n', "line 1 holds half a character"),
        (b"[" * 100_000, "line 1 is not JSON"),
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


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_lines_are_read_as_people_have_them(tmp_path: Path, name: str) -> None:
    content = b'\xef\xbb\xbf{"text": "\xe4\xbd\xa0"}\r\n\r\n  \n\xef\xbb\xbf{"text": "b"}\r{"text": "c"}'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert [row["text"] for row in read_json_lines(tmp_path / name)] == ["你", "b", "c"]
    assert read_text(tmp_path / name).splitlines()[0] == '{"text": "你"}'


def test_what_a_line_lacks_is_named(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": None}, {"text": 3}])
    rows = read_json_lines(tmp_path / "rows.jsonl", {"text": str | None, "other": str | None})
    assert [next(rows), next(rows)] == [{"text": "a"}, {"text": None}]
    with pytest.raises(ValueError, match=r'rows\.jsonl, line 3: "text" must be .*, and is 3'):
        next(rows)


def test_an_archive_that_is_cut_off_is_said(tmp_path: Path) -> None:
    packed = gzip.compress(b'{"text": "a"}\n' * 1000)
    (tmp_path / "rows.jsonl.gz").write_bytes(packed[:-9])
    with pytest.raises(ValueError, match="damaged or cut off"):
        list(read_json_lines(tmp_path / "rows.jsonl.gz"))


@pytest.mark.parametrize("torn", [b"", b'{"step": 3, "lo', b"\0\0\0\0"])
def test_a_log_whose_last_line_a_kill_cut_off_is_read(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "log.jsonl").write_bytes(b'{"step": 1}\n{"step": 2}\n' + torn)
    assert [row["step"] for row in read_log(tmp_path / "log.jsonl")] == [1, 2]


def test_a_folder_is_changed_as_a_whole_and_what_else_is_in_it_stays(tmp_path: Path) -> None:
    def write(text: str, fail: bool = False) -> None:
        with whole_folder(tmp_path / "checkpoint") as partial:
            (partial / "llm").mkdir()
            (partial / "llm" / "a").write_text(text)
            if fail:
                raise OSError(28, "No space left on device")
            (partial / "b").write_text(text)

    write("old")
    (tmp_path / "checkpoint" / "notes").write_text("mine")
    with pytest.raises(OSError, match="No space"):
        write("new", fail=True)

    def texts() -> dict[str, str]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path.relative_to(tmp_path).as_posix(): path.read_text() for path in files}

    assert texts() == {"checkpoint/llm/a": "old", "checkpoint/b": "old", "checkpoint/notes": "mine"}
    write("new")
    assert texts() == {"checkpoint/llm/a": "new", "checkpoint/b": "new", "checkpoint/notes": "mine"}


def test_what_a_kill_left_is_deleted_and_what_another_process_writes_is_not(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    host = platform.node()
    left = tmp_path / f"old.json.{gone.pid}-{host}.partial"
    kept = [tmp_path / f"a.{os.getppid()}-{host}.partial", tmp_path / f"b.{gone.pid}-another.partial", tmp_path / "c"]
    for path in (left, *kept):
        path.touch()
    write_text(tmp_path / "new.json", "new")
    assert not left.exists() and all(path.exists() for path in kept)
