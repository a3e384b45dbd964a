"""Every system's replies to every question, in parts that are kept: what a kill costs is one part."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from tqdm import tqdm

from assistant.lanes.lane import NOTHING_HEARD
from assistant.model.completion import Completion, complete
from assistant.model.prompt import user_turn
from train.evaluation.hearing import Hearing
from train.evaluation.store import Store
from train.evaluation.systems import Bench, System
from train.questions.suites import Question

PART = 64  # questions; answered together, for in int8 a reply may depend on the batch it is in
MAX_TOKENS = 96  # of a reply


def answer(
    bench: Bench, system: System, asked: Sequence[Question], hearing: Hearing, store: Store, progress: tqdm
) -> list[Completion]:
    """The replies of one system to the questions of one suite, in order."""
    answers: list[Completion] = []
    for start in range(0, len(asked), PART):
        part = asked[start : start + PART]
        content = [
            *(system.identity, bench.llm_name, bench.precision, str(bench.device), MAX_TOKENS),
            [[question.instruction, _spoken(bench, system, question, hearing)] for question in part],
        ]
        kept = store.json("replies", content, partial(_replies, bench, system, part, hearing))
        answers += [Completion(**entry) for entry in kept]
        progress.update(len(part))
    return answers


def _spoken(bench: Bench, system: System, question: Question, hearing: Hearing) -> str:
    """What tells this clip from others for this system."""
    if system.hears == "speech" or hearing.refusal(question.clip):
        return hearing.digest(question.clip)
    return bench.words(system, question.clip, hearing)


def _replies(bench: Bench, system: System, asked: Sequence[Question], hearing: Hearing) -> list[dict[str, Any]]:
    """A recording that is refused, or in which nothing is heard, gets the assistant's own answer to that."""
    said: list[str | None] = [hearing.refusal(question.clip) for question in asked]
    with bench.llm(system) as llm:
        prompts, waiting = [], []
        for index, question in enumerate(asked):
            if said[index] is None:
                content = bench.content(system, question.clip, hearing)
                if len(content):
                    prompts.append(llm.prompt([user_turn(content, question.instruction)]))
                    waiting.append(index)
        completions = dict(zip(waiting, complete(llm, prompts, MAX_TOKENS), strict=True))
    return [
        asdict(completions.get(index) or Completion(said[index] or NOTHING_HEARD, 0, True))
        for index in range(len(asked))
    ]
