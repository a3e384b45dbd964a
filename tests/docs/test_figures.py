"""The figures that people read are those that commands wrote: README, docs and the model card against their reports."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from assistant.files import ROOT

READING = {"LibriSpeech": "librispeech", "Asterisk": "asterisk", "JFK": "jfk"}  # as written -> set
README, RESULTS = ROOT / "README.md", ROOT / "docs" / "results.md"
CARD = ROOT / "assets" / "checkpoints" / "v1" / "README.md"
LANES = ("end_to_end", "cascade")


def figures(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "docs" / "figures" / name).read_text("utf-8"))
    return content


def bucket(name: str, duration: str) -> dict[str, Any]:
    """The part of a bench's result about clips of one length."""
    found: dict[str, Any] = next(part for part in figures(name)["by_duration"] if part["duration"] == duration)
    return found


def rows(document: Path) -> list[list[str]]:
    """The cells of every table row of a Markdown document."""
    lines = document.read_text("utf-8").splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]


def row(document: Path, name: str) -> list[str]:
    """The cells behind the one row of a name."""
    (found,) = [cells for cells in rows(document) if cells[0] == name]
    return found[1:]


def pair(terms: dict[str, Any]) -> str:
    return f"{terms['median']:,.0f} / {terms['p95']:,.0f}"


def pairs(part: dict[str, Any], term: str) -> list[str]:
    return [pair(part["lanes"][lane][term]) for lane in LANES]


@pytest.mark.parametrize(("term", "duration"), [("first_token", "3-8 s"), ("first_token", None), ("total", None)])
def test_the_latency_table_is_what_bench_wrote(term: str, duration: str | None) -> None:
    part = bucket("bench.json", duration) if duration else figures("bench.json")
    name = f"{term.replace('_', ' ')}, {f'{duration} clips' if duration else 'all clips'}"
    assert row(RESULTS, name) == [*pairs(part, term), f"{part['ratio'][term]:.2f}"]


def test_the_hands_free_rows_are_what_bench_wrote() -> None:
    part = bucket("hands_free.json", "3-8 s")
    first = row(RESULTS, "hands-free: first token after the utterance is closed, 3-8 s clips")
    assert first == [*pairs(part, "first_token"), f"{part['ratio']['first_token']:.2f}"]
    sound = row(RESULTS, "hands-free: first sound after the first token, 3-8 s clips")
    assert sound[:2] == pairs(part, "first_audio_gap")


def test_where_the_first_tokens_time_goes_is_what_bench_wrote() -> None:
    lanes = figures("bench.json")["lanes"]
    for stage in ("encode", "connect", "transcribe", "prefill"):
        expected = [f"{lanes[lane][stage]['median']:,.0f}" if stage in lanes[lane] else "" for lane in LANES]
        assert row(RESULTS, stage) == expected, stage


def test_the_hardware_is_the_one_that_was_measured() -> None:
    processor = figures("bench.json")["hardware"].split(",")[0]
    assert figures("hands_free.json")["hardware"].split(",")[0] == processor
    assert processor in RESULTS.read_text("utf-8")


def test_what_the_shorter_encoder_is_worth_is_what_bench_wrote() -> None:
    lanes = figures("bench.json")["lanes"]
    short, long = (lanes[lane]["encode"]["median"] for lane in LANES)
    first, other = (lanes[lane]["first_token"]["median"] for lane in LANES)
    text = " ".join((ROOT / "docs" / "how-it-works.md").read_text("utf-8").split())
    assert f"the encoder takes a median of {short:.0f} ms instead of {long:.0f}" in text
    assert f"its first token would come {(other - long + short) / first:.1f} times later" in text


def test_the_readme_has_the_same_figures() -> None:
    name = "first word of the reply, 3-8 s clips, milliseconds (median / 95th percentile)"
    assert row(README, name) == pairs(bucket("bench.json", "3-8 s"), "first_token")
    assert row(README, "the same, hands-free") == pairs(bucket("hands_free.json", "3-8 s"), "first_token")
    rates = figures("reading.json")["word_error_rate"]
    for name, key in (("LibriSpeech", "librispeech"), ("telephone prompts (Asterisk)", "asterisk")):
        written = row(README, f"words misread: {name}, {rates[key]['clips']} clips")
        assert written == [f"{rates[key]['end_to_end']:.3f}", f"{rates[key]['whisper']:.3f}"]


@pytest.mark.parametrize("document", [RESULTS, CARD], ids=lambda path: path.parent.name)
def test_the_reading_tables_are_what_the_evaluation_wrote(document: Path) -> None:
    rates = figures("reading.json")["word_error_rate"]
    found = set()
    for cells in rows(document):
        for written, name in READING.items():
            if written in cells[0] and re.fullmatch(r"0\.\d{3}", cells[-1]):
                assert cells[-1] == f"{rates[name]['end_to_end']:.3f}", f"{document}: {cells[0]}"
                assert cells[-2] == f"{rates[name]['whisper']:.3f}", f"{document}: {cells[0]}"
                found.add(name)
    assert found == set(READING.values())


def reported(report: Path, suite: str, title: str) -> dict[str, dict[str, float]]:
    """Row -> column -> figure, without its interval, of one table of a report that `train.evaluation` wrote."""
    section = report.read_text("utf-8").split(f"## {suite}\n")[1].split("\n## ")[0]
    lines = section.split(f"**{title}")[1].split("\n\n")[1].splitlines()
    head, _, *body = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    return {
        cells[0]: {name: float(cell.split()[0]) for name, cell in zip(head[1:], cells[1:], strict=True) if cell != "-"}
        for cells in body
    }


REPORT, LONGER = ROOT / "docs" / "report" / "report.md", ROOT / "docs" / "ablation" / "longer" / "report.md"
FOLLOWS, SHARE = "Share of replies that do what", "The same as a share of the upper bound's"
BIAS = "Speech anchor bias: share of replies that merely transcribe"
REAL = ("real: end_to_end", "real: cascade", "real: upper_bound")


def test_how_well_it_does_as_told_is_what_the_report_says() -> None:
    follows, share = (reported(REPORT, "Following instructions", title) for title in (FOLLOWS, SHARE))
    assert len(follows) == 8
    for task, found in follows.items():
        written = [float(cell) for cell in row(RESULTS, task)]
        assert written[:3] == pytest.approx([found[name] for name in REAL], abs=0.0051), task
        assert written[3] == pytest.approx(share[task][REAL[0]], abs=0.0051), task


def test_how_often_it_merely_transcribes_is_what_the_reports_say() -> None:
    found = reported(REPORT, "Following instructions", BIAS)["all"]
    (name,) = [cells[0] for cells in rows(README) if "merely transcribes" in cells[0]]
    assert [float(cell) for cell in row(README, name)] == pytest.approx([found[key] for key in REAL[:2]], abs=0.0051)
    assert f"the LLM with the text: {found[REAL[2]]:.2f}" in name
    found = reported(LONGER, "Following instructions", BIAS)["all"]
    text = " ".join(RESULTS.read_text("utf-8").split())
    for words, system in (
        (r"tuned on transcripts alone transcribes in (\d+) %", "vanilla"),
        (r"on the LLM's own replies it does in (\d+) %", "self_powered"),
        (r"the LLM with the text in hand in (\d+) %", "upper_bound"),
    ):
        (percent,) = re.findall(words, text)
        assert int(percent) == pytest.approx(100 * found[f"real: {system}"], abs=0.51), system
