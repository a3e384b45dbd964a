"""The report: Markdown tables of all figures with their intervals, why replies failed, and plots."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from assistant.files import write_text
from train.evaluation.figures import ALL, OF_UPPER_BOUND, Figure
from train.evaluation.plots import draw_plots
from train.evaluation.records import Record
from train.questions.suites import RETENTION, SUITES

# What each measure is called, in the order of the report.
MEASURES = {
    "follows": "Share of replies that do what the instruction asks (higher is better)",
    OF_UPPER_BOUND: "The same as a share of the upper bound's, on the same clips",
    "merely_transcribed": "Speech anchor bias: share of replies that merely transcribe (lower is better)",
    "accuracy": "Accuracy (higher is better)",
    "match": "Share of replies that contain an accepted answer (higher is better)",
    "bleu": "BLEU, 0 to 100 (higher is better)",
    "chrf": "chrF, 0 to 100 (higher is better)",
    "keyword_f1": "F1 of the keywords with the upper bound's (higher is better)",
    "wer": "Word error rate (lower is better)",
    "cer": "Character error rate (lower is better)",
    "says_nothing_was_heard": "Share of replies that say that nothing was heard (higher is better)",
}
VOICES = ("real", "synthetic", "text")


def write_report(folder: Path, about: dict[str, Any], found: Sequence[Figure], records: Sequence[Record]) -> None:
    """Write `report.md` and its plots."""
    lines = ["# Evaluation", "", *_header(about)]
    for plot, title in draw_plots(folder, found):
        lines += ["", f"![{title}]({plot})"]
    titles = {**{name: suite.title for name, suite in SUITES.items()}, RETENTION: "What the LLM still knows, in text"}
    for suite, title in titles.items():
        mine = [figure for figure in found if figure.suite == suite]
        if mine:
            lines += ["", f"## {title}"]
        if suite == RETENTION and about["lora_off_logits_identical"] is not None:
            same = "bit for bit those" if about["lora_off_logits_identical"] else "NOT those"
            lines += ["", f"With LoRA off the logits are {same} of the bare LLM."]
        for measure, meaning in MEASURES.items():
            if chosen := [figure for figure in mine if figure.measure == measure]:
                lines += ["", f"**{meaning}**", "", *_table(chosen)]
        if failures := _failures([record for record in records if record["suite"] == suite]):
            lines += ["", "Why replies do not do what the instruction asks:", "", *failures]
    write_text(folder / "report.md", "\n".join(lines) + "\n")


def _header(about: dict[str, Any]) -> list[str]:
    systems = [
        f"- **{name}**: {entry['what']}" + (f", SHA-256 {entry['sha256'][:16]}…" if entry["sha256"] else "")
        for name, entry in about["systems"].items()
    ]
    left_out = ["", "Left out:", "", *[f"- {sentence}" for sentence in about["left_out"]]] if about["left_out"] else []
    return [
        f"{about['date']}, {about['hardware']}; LLM {about['llm']} in {about['precision']}, {about['whisper']} in "
        "float32.",
        "",
        *systems,
        *left_out,
        "",
        f"Made by `{about['command']}`. In brackets: 95 % intervals, bootstrap over clips. Columns of real and "
        "synthetic speech are never averaged. Every reply, with the reason where it fails, is in `clips.jsonl`; every "
        "figure in `evaluation.json`.",
    ]


def _table(chosen: Sequence[Figure]) -> list[str]:
    """Rows are tasks, over all sets, where there are several, and sets otherwise; columns are systems by voice."""
    several = len({figure.task for figure in chosen}) > 1
    pooled = several and any(figure.set == ALL for figure in chosen)
    cells: dict[str, dict[tuple[str, str], Figure]] = defaultdict(dict)
    for figure in chosen:
        if not pooled or figure.set == ALL:
            row = figure.task if pooled else f"{figure.set}, {figure.task}" if several else figure.set
            cells[row][figure.voice, figure.system] = figure
    if len(cells) == 2 and ALL in cells and not pooled:  # one set, and all sets, are the same
        del cells[ALL]
    systems = list(dict.fromkeys(figure.system for figure in chosen))
    voices = [voice for voice in VOICES if any(figure.voice == voice for figure in chosen)]
    header = [""] + [part for voice in voices for part in (f"{voice}: clips", *(f"{voice}: {s}" for s in systems))]
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row, found in sorted(cells.items(), key=lambda cell: cell[0] == ALL):  # a sum comes last
        texts = [row]
        for voice in voices:
            there = [found[voice, system] for system in systems if (voice, system) in found]
            texts.append(str(there[0].clips) if there else "-")
            texts += [_cell(found.get((voice, system))) for system in systems]
        lines.append("| " + " | ".join(texts) + " |")
    return lines


def _cell(figure: Figure | None) -> str:
    if figure is None or math.isnan(figure.value):
        return "-"
    digits = 1 if figure.measure in ("bleu", "chrf") else 3
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}, {figure.high:.{digits}f}]"


def _failures(records: Sequence[Record]) -> list[str]:
    """For each system and task, the reasons with their counts."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for record in records:
        for system, entry in record["systems"].items():
            if entry.get("failure"):
                counts[system, record["task"]][entry["failure"]] += 1
    if not counts:
        return []
    rows = [
        f"| {system} | {task} | " + ", ".join(f"{why} {count}" for why, count in reasons.most_common()) + " |"
        for (system, task), reasons in sorted(counts.items())
    ]
    return ["| system | task | reasons and replies |", "|---|---|---|", *rows]
