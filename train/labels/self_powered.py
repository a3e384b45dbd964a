"""Self-Powered augmentation: the LLM writes, from the transcript, what a speech-LLM should answer to the speech.

    python -m train.labels.self_powered runs/synthetic/manifest.jsonl --out runs/self_powered

For every utterance a task and a wording are drawn (by the seed and the utterance alone), the LLM reads
"instruction: transcript" and its greedy reply becomes the target (Self-Powered LSM, arXiv 2410.03798). Writes
`manifest.jsonl`, with `task`, `instruction`, `language` and `target` beside what the utterance came with, and the
statistics, printed and in `statistics.json`. Sources are manifests, folders of manifests or of audio with `.txt`
beside, and Hugging Face data sets (`name:configuration@split`).

Kill it, start it again: finished parts stay. `accelerate launch -m train.labels.self_powered …` shares the parts among
processes. Neither changes the result.
"""

import argparse
import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm import tqdm

from assistant.files import write_text
from assistant.model.completion import Completion, complete
from assistant.model.llm import LLM, load_llm
from assistant.model.prompt import user_turn
from assistant.model.weights import WeightsError
from train.command_line import Files, command_line, told
from train.data.manifest import write_manifest
from train.data.utterances import read_utterances
from train.labels.instructions import INSTRUCTIONS, InstructionPool, Task
from train.labels.target_filters import language_of, rejection

PART = 512  # targets in a part: what one call of the LLM answers, and the most that a kill loses
LONGEST_PROMPT = 256  # tokens
PATIENCE = timedelta(days=7)  # of a process that is done for the others


@dataclass(frozen=True)
class Job:
    """One utterance (an entry of a manifest) with the task and the wording drawn for it."""

    utterance: dict[str, Any]
    task: Task
    instruction: str
    language: str


def plan(utterances: Iterable[dict[str, Any]], pool: InstructionPool, each: int, seed: int) -> list[Job]:
    """`each` different tasks for every utterance, all equally likely; an utterance without transcript gets none."""
    jobs = []
    for utterance in utterances:
        if not (utterance["text"] or "").strip():
            continue
        rng = random.Random(f"{seed}\n{utterance['source']}\n{Path(utterance['audio']).name}\n{utterance['text']}")
        language = language_of(utterance["text"])
        offered = pool.offered(language)
        for name in rng.sample(offered, min(each, len(offered))):
            jobs.append(Job(utterance, pool.tasks[name], pool.draw(name, language, rng), language))
    return jobs


def write_targets(llm: LLM, jobs: Sequence[Job], max_tokens: int) -> list[dict[str, Any]]:
    """For every job its `target`, the `tokens` of it, and why it was `rejected` (None when it is kept)."""
    targets: list[dict[str, Any]] = [{} for _ in jobs]
    asked, prompts = [], []
    for index, job in enumerate(jobs):
        text = job.utterance["text"].strip()
        prompt = llm.prompt([user_turn(text, job.instruction)])
        if len(prompt.ids) > LONGEST_PROMPT:
            targets[index] = {"target": "", "tokens": 0, "rejected": "too long"}
        elif job.task.target == "transcript":
            tokens = len(llm.plain_text.tokens(text))
            targets[index] = {"target": text, "tokens": tokens, "rejected": None}
        else:
            asked.append(index)
            prompts.append(prompt)
    for index, reply in zip(asked, complete(llm, prompts, max_tokens), strict=True):
        targets[index] = _judged(jobs[index], reply)
    return targets


def _judged(job: Job, reply: Completion) -> dict[str, Any]:
    reason = rejection(job.task, job.instruction, job.utterance["text"], job.language, reply)
    return {"target": reply.text.strip(), "tokens": reply.tokens, "rejected": reason}


def _part_path(out: Path, jobs: Sequence[Job], settings: Sequence[Any]) -> Path:
    """Named after all that decides its content: what changed is written anew, what did not stays."""
    content = [[job.utterance["text"], job.task.name, job.instruction] for job in jobs]
    digest = hashlib.sha256(json.dumps([content, *settings]).encode()).hexdigest()
    return out / "parts" / f"{digest[:24]}.json"


def _whole(path: Path, jobs: Sequence[Job]) -> bool:
    """Whether a part is there; what a broken disk left of one is written anew."""
    try:
        return len(json.loads(path.read_text("utf-8"))) == len(jobs)
    except (FileNotFoundError, ValueError, TypeError):
        return False


def _write(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1))


# Statistics -------------------------------------------------------------------------------------------------------


def statistics(jobs: Sequence[Job], targets: Sequence[dict[str, Any]], skipped: int) -> dict[str, Any]:
    """Counts of what was drawn and kept, by task; hours are of kept speech, an utterance counted once in `total`."""
    rows: dict[str, dict[str, Any]] = {}
    for name in [*sorted({job.task.name for job in jobs}), "total"]:
        mine = [(j, t) for j, t in zip(jobs, targets, strict=True) if name in (j.task.name, "total")]
        kept = [(j, t) for j, t in mine if t["rejected"] is None]
        speech = {job.utterance["audio"]: job.utterance["duration"] or 0 for job, _ in kept}
        rows[name] = {
            "drawn": len(mine),
            "kept": len(kept),
            "kept_share": round(len(kept) / max(len(mine), 1), 3),
            "utterances": len(speech),
            "hours": round(sum(speech.values()) / 3600, 2),
            **{language: sum(job.language == language for job, _ in kept) for language in ("english", "chinese")},
            "mean_target_tokens": round(sum(target["tokens"] for _, target in kept) / max(len(kept), 1), 1),
            "rejected": dict(sorted(Counter(t["rejected"] for _, t in mine if t["rejected"]).items())),
        }
    return {"without_transcript_or_readable_audio": skipped, "tasks": rows}


def table(figures: dict[str, Any]) -> str:
    """The statistics as a Markdown table: for our data what Table 1 of Self-Powered LSM is for theirs."""
    columns = ["drawn", "kept", "kept_share", "utterances", "hours", "english", "chinese", "mean_target_tokens"]
    lines = ["| task | " + " | ".join(column.replace("_", " ") for column in columns) + " | rejected |"]
    lines.append("|---" * (len(columns) + 2) + "|")
    for name, row in figures["tasks"].items():
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in row["rejected"].items()) or "-"
        lines.append(f"| {name} | " + " | ".join(f"{row[column]:,}" for column in columns) + f" | {reasons} |")
    lines.append(f"\nWithout transcript or readable audio: {figures['without_transcript_or_readable_audio']:,}.")
    return "\n".join(lines)


# Command line -----------------------------------------------------------------------------------------------------


def _arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = command_line(__doc__)
    parser.add_argument("source", nargs="+", action=Files, help="manifests, folders, or Hugging Face data sets")
    parser.add_argument("--limit", type=int, help="only the first utterances, for a quick look")
    parser.add_argument("--each", type=int, default=1, help="tasks for each utterance")
    parser.add_argument("--instructions", type=Path, default=INSTRUCTIONS, help="folder of task files")
    parser.add_argument("--llm", default="qwen2.5-coder-0.5b-instruct")
    parser.add_argument("--precision", default="auto", help="int8, float32, float16, bfloat16")
    parser.add_argument("--max-tokens", type=int, default=128, help="longer targets are dropped as truncated")
    parser.add_argument("--seed", type=int, default=1)
    return parser, parser.parse_args()


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser, arguments = _arguments()
    state = PartialState(timeout=PATIENCE)
    try:
        pool = InstructionPool.load(arguments.instructions)
        everything = (read_utterances(source, arguments.out / "audio") for source in arguments.source)
        utterances = list(itertools.islice(itertools.chain.from_iterable(everything), arguments.limit))
        jobs = plan(utterances, pool, arguments.each, arguments.seed)
        parts = [jobs[start : start + PART] for start in range(0, len(jobs), PART)]
        settings = (arguments.llm, arguments.precision, arguments.max_tokens)
        paths = [_part_path(arguments.out, part, settings) for part in parts]
        mine = range(state.process_index, len(parts), state.num_processes)
        missing = [index for index in mine if not _whole(paths[index], parts[index])]
        if missing:
            llm = load_llm(arguments.llm, arguments.precision, state.device)
            _work(llm, [(parts[index], paths[index]) for index in missing], arguments.max_tokens, state.is_main_process)
    except (ValueError, WeightsError, OSError) as error:
        parser.error(str(error))
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(arguments.out, jobs, paths, len(utterances))
    state.destroy_process_group()


def _work(llm: LLM, parts: Sequence[tuple[Sequence[Job], Path]], max_tokens: int, shown: bool) -> None:
    total = sum(len(jobs) for jobs, _ in parts)
    with tqdm(total=total, desc="Writing targets", unit=" targets", disable=not shown) as progress:
        tokens = 0
        for jobs, path in parts:
            targets = write_targets(llm, jobs, max_tokens)
            _write(path, targets)
            tokens += sum(t["tokens"] for j, t in zip(jobs, targets, strict=True) if j.task.target == "llm")
            seconds = max(progress.format_dict["elapsed"], 1e-3)
            progress.set_postfix_str(f"{tokens / seconds:.0f} tokens/s", refresh=False)
            progress.update(len(jobs))


def _finish(out: Path, jobs: Sequence[Job], paths: Sequence[Path], utterances: int) -> None:
    targets = [target for path in paths for target in json.loads(path.read_text("utf-8"))]
    write_manifest(
        out / "manifest.jsonl",
        (
            {
                **{key: job.utterance[key] for key in ("audio", "text", "speaker", "duration", "source")},
                "task": job.task.name,
                "instruction": job.instruction,
                "language": job.language,
                "target": target["target"],
            }
            for job, target in zip(jobs, targets, strict=True)
            if target["rejected"] is None
        ),
    )
    transcribed = len({job.utterance["audio"] for job in jobs})
    figures = statistics(jobs, targets, utterances - transcribed)
    _write(out / "statistics.json", figures)
    print(table(figures))


if __name__ == "__main__":
    main()
