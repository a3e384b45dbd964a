"""Books become sentences: from a Debian package as Debian builds it, and from what the program `bible` prints."""

import json
import os
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from train.data import literature
from train.data.sentences import read_sentences

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")

PRIDE = [
    "PRIDE AND PREJUDICE",
    "",
    "“My dear Mr. Bennet,” said his lady to",
    "him one day, “have you heard?” He had",
    "not.",
]
SENSE = ["SENSE AND SENSIBILITY", "", "The family of Dashwood had long been settled in Sussex."]
BIBLE = r"""#!/bin/sh
printf 'Ge1:1 In the beginning God created the heaven and the earth.\n'
printf 'Ge1:3 And God said, Let there be light: and there was light.\n'
"""


def stream(lines: list[str]) -> bytes:
    """Lines as R keeps a character vector: a header, then flags, length and bytes of each, packed, with a length."""
    strings = (b"\x00\x04\x00\x09" + len(raw).to_bytes(4, "big") + raw for raw in map(str.encode, lines))
    packed = zlib.compress(b"X\n\x00\x00\x00\x03" + len(lines).to_bytes(4, "big") + b"".join(strings))
    return len(packed).to_bytes(4, "big") + packed


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package with two novels."""
    data = tmp_path / "root" / literature.NOVELS
    data.parent.mkdir(parents=True)
    data.write_bytes(stream(PRIDE) + stream(SENSE))
    control = tmp_path / "root" / "DEBIAN" / "control"
    control.parent.mkdir()
    control.write_text(
        "Package: novels\nVersion: 1\nArchitecture: all\nMaintainer: us <us@localhost>\nDescription: x\n"
    )
    subprocess.run(["dpkg-deb", "--build", str(tmp_path / "root"), str(tmp_path / "novels.deb")], check=True)
    return tmp_path / "novels.deb"


def make(monkeypatch: pytest.MonkeyPatch, package: Path, out: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["literature", "--austen", str(package), "--out", str(out)])
    literature.main()


def test_books_become_sentences_that_can_be_spoken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    program = tmp_path / "programs" / "bible"
    program.parent.mkdir()
    program.write_text(BIBLE)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    out = tmp_path / "out" / "literature.jsonl"
    make(monkeypatch, package, out)
    texts = [json.loads(line)["text"] for line in out.read_text("utf-8").splitlines()]
    assert texts == [
        "In the beginning God created the heaven and the earth",
        "And God said, Let there be light",
        "and there was light",
        "PRIDE AND PREJUDICE My dear Mr. Bennet, said his lady to him one day, have you heard",
        "He had not",
    ]
    assert read_sentences([out]) == texts


def test_without_the_program_it_says_what_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SystemExit, match=r"bible.*which packages are needed"):
        make(monkeypatch, package, tmp_path / "literature.jsonl")
    assert not (tmp_path / "literature.jsonl").exists()
