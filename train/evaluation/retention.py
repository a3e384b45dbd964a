"""What tuning for speech leaves of the LLM's knowledge: multiple choice in text, and the logits with LoRA off."""

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from assistant.files import read_json_lines
from assistant.model.llm import LLM, Message, load_llm
from train.evaluation.store import Store
from train.evaluation.systems import Bench, System

LETTERS = "ABCD"
COMPARED = 16  # questions on which the logits are compared with the bare LLM's
PART = 64


def read_questions(path: Path, limit: int | None) -> list[dict[str, Any]]:
    """Questions with four options and the letter of the right one."""
    return list(itertools.islice(read_json_lines(path), limit))


def choices(bench: Bench, system: System, asked: Sequence[dict[str, Any]], store: Store) -> list[str]:
    """The likeliest of the letters as the reply's first token, for each question, as the system uses its LLM."""
    found: list[str] = []
    # What does not carry LoRA is the LLM itself, whichever system it belongs to.
    identity = system.identity if bench.has_lora(system) else "text"
    with tqdm(total=len(asked), desc=f"Multiple choice: {system.name}", unit=" questions") as progress:
        for start in range(0, len(asked), PART):
            part = asked[start : start + PART]
            content = [identity, bench.llm_name, bench.precision, str(bench.device), part]
            found += store.json("choices", content, partial(_choose, bench, system, part))
            progress.update(len(part))
    return found


def logits_are_those_of_the_bare_llm(bench: Bench, asked: Sequence[dict[str, Any]], store: Store) -> bool:
    """Whether an LLM that carries LoRA, switched off, gives bit for bit what the LLM gives that never had any."""
    identities = [system.identity for system in bench.systems if bench.has_lora(system)]
    content = [identities, bench.llm_name, bench.precision, str(bench.device), asked[:COMPARED]]
    return bool(store.json("identical", content, lambda: _identical(bench, asked[:COMPARED])))


def _identical(bench: Bench, asked: Sequence[dict[str, Any]]) -> bool:
    text = next(system for system in bench.systems if system.hears == "text")
    bare = load_llm(bench.llm_name, bench.precision, bench.device)
    expected = [_logits(bare, question) for question in asked]
    del bare
    with bench.llm(text) as llm:
        return all(
            torch.equal(_logits(llm, question), wanted) for question, wanted in zip(asked, expected, strict=True)
        )


def _choose(bench: Bench, system: System, asked: Sequence[dict[str, Any]]) -> list[str]:
    with bench.llm(system) as llm:
        tokens = [llm.tokenizer(letter, add_special_tokens=False).input_ids[0] for letter in LETTERS]
        return [LETTERS[int(_logits(llm, question)[tokens].argmax())] for question in asked]


@torch.inference_mode()
def _logits(llm: LLM, question: dict[str, Any]) -> Tensor:
    """Logits [vocabulary] of the reply's first token."""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, question["options"], strict=True))
    text = f"{question['question']}\n{options}\nAnswer with the letter of the right option."
    prompt = llm.prompt([Message("user", [text])])
    logits: Tensor = llm.model(inputs_embeds=llm.embed(prompt), logits_to_keep=1).logits[0, -1].float().cpu()
    return logits
