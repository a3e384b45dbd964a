"""Evaluation: end-to-end, cascade and upper bound side by side, on the same clips with the same LLM.

    python -m train.evaluation.evaluate --out runs/evaluation --compare vanilla=runs/vanilla/checkpoint

Writes `report.md` with plots, `evaluation.json` (every figure with its 95 % interval) and `clips.jsonl` (every reply
and why it fails). The end-to-end system is the checkpoint; the cascade reads Whisper's transcript; the upper bound
is given the true words; further checkpoints of the same LLM are named with --compare. What is measured and how:
docs/evaluation.md. Kill it, start it again: what was heard and answered is kept under --out.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from assistant.files import CHECKPOINT, write_json_lines, write_text
from assistant.latency import hardware
from assistant.model.checkpoint import CheckpointError
from assistant.model.completion import Completion
from assistant.model.quantisation import chosen
from assistant.model.weights import WeightsError
from train.command_line import command_line
from train.evaluation.answering import answer
from train.evaluation.figures import ALL, Figure, figures
from train.evaluation.hearing import Hearing
from train.evaluation.records import Record, choice_record, reading_record, reply_record
from train.evaluation.report import write_report
from train.evaluation.retention import choices, logits_are_those_of_the_bare_llm, read_questions
from train.evaluation.store import Store
from train.evaluation.systems import END_TO_END, Bench
from train.labels.instructions import InstructionPool
from train.questions.clips import Clip, evaluation_clips
from train.questions.suites import RETENTION, SUITES, Question, questions

DATA = Path("runs/data")  # sets that are not bundled; what is not there is left out, and the report says so
WHAT = {"transcript": "Whisper's transcript into the LLM", "text": "the true words into the LLM"}


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = command_line(__doc__)
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--compare", action="append", default=[], metavar="NAME=DIR", help="a further checkpoint")
    parser.add_argument(
        "--suite", nargs="+", choices=[*SUITES, RETENTION], metavar="NAME", help=", ".join([*SUITES, RETENTION])
    )
    parser.add_argument("--limit", type=int, help="at most N clips of each set, for a quick look")
    parser.add_argument("--data", type=Path, default=DATA, help=f"text/ and speech/dev/ (default: {DATA})")
    parser.add_argument("--precision", default="auto", choices=["auto", "int8", "float32", "float16", "bfloat16"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser, parser.parse_args()


def main() -> None:
    """Command line; see the top of the file."""
    parser, arguments = _arguments()
    checkpoints = {END_TO_END: arguments.checkpoint}
    for item in arguments.compare:
        name, _, folder = item.partition("=")
        if not name or not folder or name in ("cascade", "upper_bound", *checkpoints):
            parser.error(f"--compare {item}: give NAME=DIR, each name once, such as vanilla=runs/vanilla/checkpoint.")
        checkpoints[name] = Path(folder)
    if arguments.limit is not None and arguments.limit < 1:
        parser.error("--limit must be at least 1.")
    try:
        bench = Bench(checkpoints, arguments.precision, torch.device(arguments.device))
        evaluate(bench, arguments.out, arguments.data, arguments.suite or [*SUITES, RETENTION], arguments.limit)
    except (CheckpointError, WeightsError, ValueError, OSError) as error:
        parser.error(str(error))


def evaluate(bench: Bench, out: Path, data: Path, wanted: Sequence[str], limit: int | None) -> None:
    """Run the wanted suites and write what was found under `out`."""
    store, suites = Store(out / "cache"), {name: SUITES[name] for name in wanted if name in SUITES}
    sets = dict.fromkeys(name for suite in suites.values() for name in suite.sets)
    clips, left_out = evaluation_clips(data, out / "clips", list(sets), limit)
    hearing = Hearing(bench.config.whisper, store, bench.device)
    hearing.listen(clip for group in clips.values() for clip in group)
    for name in [name for name in clips if name != "no speech"]:
        refused = [clip for clip in clips[name] if hearing.refusal(clip)]
        left_out += [f"{clip.name}: {hearing.refusal(clip)}" for clip in refused]
        clips[name] = [clip for clip in clips[name] if clip not in refused]

    records = [
        *_readings(bench, list(suites), clips, hearing, store),
        *_replies(bench, list(suites), clips, hearing, store),
    ]
    identical = None
    if RETENTION in wanted:
        questions_in_text = data / "text" / "mmlu_subset.jsonl"
        if questions_in_text.exists():
            retained, identical = _retention(bench, read_questions(questions_in_text, limit), store)
            records += retained
        else:
            left_out.append(f"{RETENTION}: {questions_in_text} is not there.")
    if not records:
        raise OSError(
            f"Nothing to evaluate: none of the sets is under {data}. Give the folder that holds them as --data."
        )
    _write(out, _about(bench, left_out, identical), figures(records), records)


def _readings(
    bench: Bench, suites: Sequence[str], clips: dict[str, list[Clip]], hearing: Hearing, store: Store
) -> list[Record]:
    records = []
    for suite in (name for name in suites if SUITES[name].reads):
        mine = [clip for name in SUITES[suite].sets for clip in clips.get(name, [])]
        for clip in tqdm(mine, desc=f"Reading: {suite}", unit=" clips"):
            heard = {system.name: bench.heard(system, clip, hearing, store) for system in bench.systems}
            records.append(reading_record(suite, clip, heard))
    return records


def _replies(
    bench: Bench, suites: Sequence[str], clips: dict[str, list[Clip]], hearing: Hearing, store: Store
) -> list[Record]:
    """All questions to one system, then to the next: LoRA is changed once for each."""
    pool = InstructionPool.load()
    asked: list[Question] = []
    by_suite = {name: questions(name, clips, pool) for name in suites}
    asked = [question for mine in by_suite.values() for question in mine]
    answers: dict[str, list[Completion]] = {}
    for system in bench.systems:
        with tqdm(total=len(asked), desc=f"Answering: {system.name}", unit=" questions") as progress:
            parts = [answer(bench, system, mine, hearing, store, progress) for mine in by_suite.values()]
        answers[system.name] = [reply for part in parts for reply in part]
    records = []
    for index, question in enumerate(asked):
        clip = question.clip
        refused = hearing.refusal(clip) is not None
        heard = {s.name: "" if refused else bench.heard(s, clip, hearing, store) for s in bench.systems}
        records.append(reply_record(question, heard, {name: replies[index] for name, replies in answers.items()}))
    return records


def _retention(bench: Bench, asked: Sequence[dict[str, Any]], store: Store) -> tuple[list[Record], bool | None]:
    """Systems whose LLM is the untouched one share one row, the upper bound's."""
    tuned = [system for system in bench.systems if bench.has_lora(system)]
    plain = next(system for system in bench.systems if system.hears == "text")
    identical = logits_are_those_of_the_bare_llm(bench, asked, store) if tuned else None
    chosen = {system.name: choices(bench, system, asked, store) for system in [plain, *tuned]}
    records = [
        choice_record(question, {name: letters[index] for name, letters in chosen.items()})
        for index, question in enumerate(asked)
    ]
    return records, identical


def _about(bench: Bench, left_out: list[str], identical: bool | None) -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(["python", "-m", "train.evaluation.evaluate", *sys.argv[1:]]),
        "hardware": hardware(),
        "precision": chosen(bench.precision, bench.device),
        "llm": bench.llm_name,
        "whisper": bench.config.whisper,
        "systems": {
            system.name: {
                "what": WHAT.get(system.hears, f"checkpoint {_from_here(system.checkpoint)}"),
                "sha256": system.identity if system.checkpoint else None,
            }
            for system in bench.systems
        },
        "left_out": left_out,
        "lora_off_logits_identical": identical,
    }


def _from_here(path: Path | None) -> Path | None:
    """A path without the folders that are this machine's own."""
    return path.relative_to(Path.cwd()) if path and path.is_relative_to(Path.cwd()) else path


def _write(out: Path, about: dict[str, Any], found: list[Figure], records: list[Record]) -> None:
    write_json_lines(out / "clips.jsonl", records)
    content = {**about, "figures": [asdict(figure) for figure in found]}
    write_text(out / "evaluation.json", json.dumps(content, ensure_ascii=False, indent=1) + "\n")
    write_report(out, about, found, records)
    print(f"The report is {out / 'report.md'}.")
    following: dict[str, dict[str, float]] = {}
    for figure in found:
        if (figure.suite, figure.measure, figure.set, figure.voice) == ("following", "follows", ALL, "real"):
            following.setdefault(figure.system, {})[figure.task] = round(figure.value, 4)
    print(json.dumps({"report": str(out / "report.md"), "records": len(records), "following_real": following}))


if __name__ == "__main__":
    main()
