"""Files are whole or absent, lines are objects or named, and what a program needs is offered without loading models."""

import gzip
import subprocess
import sys
from pathlib import Path

import pytest

import assistant
from assistant.files import ROOT, read_json_lines, whole, write_json_lines, write_text


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
