"""The figures that people read are those that commands wrote: README.md and the model card against docs/figures."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from assistant.files import ROOT

READING = {"LibriSpeech": "librispeech", "Asterisk": "asterisk", "JFK": "jfk"}  # as written -> set


def figures(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "docs" / "figures" / name).read_text("utf-8"))
    return content


def rows(document: Path) -> list[list[str]]:
    """The cells of every table row of a Markdown document."""
    lines = document.read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def pair(terms: dict[str, Any]) -> str:
    return f"{terms['median']:,.0f} / {terms['p95']:,.0f}"


@pytest.mark.parametrize(("term", "duration"), [("first_token", "3-8 s"), ("first_token", None), ("total", None)])
def test_the_latency_table_is_what_bench_wrote(term: str, duration: str | None) -> None:
    bench = figures("bench.json")
    part = next(part for part in bench["by_duration"] if part["duration"] == duration) if duration else bench
    name = f"{term.replace('_', ' ')}, {f'{duration} clips' if duration else 'all clips'}"
    (row,) = [cells for cells in rows(ROOT / "README.md") if cells[0] == name]
    lanes = part["lanes"]
    expected = [pair(lanes["end_to_end"][term]), pair(lanes["cascade"][term]), f"{part['ratio'][term]:.2f}"]
    assert row[1:] == expected


def test_the_hands_free_rows_are_what_bench_wrote() -> None:
    part = next(part for part in figures("hands_free.json")["by_duration"] if part["duration"] == "3-8 s")
    terms = {
        "first token after the utterance is closed": "first_token",
        "first sound after the first token": "first_audio_gap",
    }
    found = {cells[0]: cells[1:3] for cells in rows(ROOT / "README.md") if cells[0].startswith("hands-free")}
    for name, term in terms.items():
        expected = [pair(part["lanes"][lane][term]) for lane in ("end_to_end", "cascade")]
        assert found[f"hands-free: {name}, 3-8 s clips"] == expected


@pytest.mark.parametrize("document", ["README.md", "assets/checkpoints/v1/README.md"])
def test_the_reading_tables_are_what_the_evaluation_wrote(document: str) -> None:
    rates = figures("reading.json")["word_error_rate"]
    found = set()
    for cells in rows(ROOT / document):
        for written, name in READING.items():
            if written in cells[0] and re.fullmatch(r"0\.\d{3}", cells[-1]):
                assert cells[-1] == f"{rates[name]['end_to_end']:.3f}", f"{document}: {cells[0]}"
                assert cells[-2] == f"{rates[name]['whisper']:.3f}", f"{document}: {cells[0]}"
                found.add(name)
    assert found == set(READING.values())
