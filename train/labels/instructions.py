"""The instruction pool: for every task its wordings, those to train on and those kept for evaluation.

One TOML file a task, in `assets/instructions/`; a further file there is a further task. `title` and the training
wordings in `english` or `chinese` are required, the rest may be left out:

    held_out_english, held_out_chinese   wordings that training never sees
    target = "transcript"                the target is the transcript itself; no LLM is asked
    repeats = true                       the target must say the speech again, which all other targets must not
    reply = "other language"             the target is in Chinese for English speech, and the other way round
    full_sentences = true                a target without final punctuation was cut off
    speech_alone = 0.7                   share of draws without any wording: the speech is the instruction
"""

import random
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from assistant.files import ASSETS, read_text

INSTRUCTIONS = ASSETS / "instructions"
LANGUAGES = ("english", "chinese")


class InstructionError(ValueError):
    """A task file cannot be used; the message names it and says what to change."""


@dataclass(frozen=True)
class Task:
    """One task: wordings by language, and what its targets are like."""

    name: str
    title: str
    wordings: dict[str, list[str]] = field(default_factory=dict)
    held_out: dict[str, list[str]] = field(default_factory=dict)
    target: str = "llm"
    repeats: bool = False
    reply: str = "any language"
    full_sentences: bool = False
    speech_alone: float = 0.0


CHOICES: dict[str, tuple[Any, ...]] = {
    "target": ("llm", "transcript"),
    "repeats": (True, False),
    "reply": ("any language", "other language"),
    "full_sentences": (True, False),
}


@dataclass(frozen=True)
class InstructionPool:
    """All tasks by name, in alphabetical order."""

    tasks: dict[str, Task]

    @classmethod
    def load(cls, folder: Path = INSTRUCTIONS) -> "InstructionPool":
        """Read every task file of a folder.

        Raises
        ------
        InstructionError
            There is none, or one is not as the top of this file describes.
        """
        tasks = {path.stem: _read(path) for path in sorted(folder.glob("*.toml"))}
        if not tasks:
            raise InstructionError(f"{folder} holds no task files (*.toml).")
        return cls(tasks)

    def draw(self, task: str, language: str, rng: random.Random) -> str:
        """A training wording for speech in `language` (english or chinese); empty when the speech is to stand alone."""
        known = self.tasks[task]
        alone, wording = rng.random() < known.speech_alone, rng.choice(known.wordings[language])
        return "" if alone else wording

    def held_out(self, task: str, language: str) -> list[str]:
        """The wordings of a task that are kept for evaluation."""
        return self.tasks[task].held_out.get(language, [])

    def offered(self, language: str) -> list[str]:
        """The tasks that have wordings for speech in `language`."""
        return [name for name, task in self.tasks.items() if language in task.wordings]


def _read(path: Path) -> Task:
    try:
        settings = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise InstructionError(f"{path} is not a TOML file: {error}") from error

    def lists(prefix: str) -> dict[str, list[str]]:
        found = {language: settings.pop(prefix + language) for language in LANGUAGES if prefix + language in settings}
        for language, wordings in found.items():
            if not (
                isinstance(wordings, list) and wordings and all(isinstance(w, str) and w.strip() for w in wordings)
            ):
                raise InstructionError(f"{path}: {prefix}{language} must be a list of wordings, none of them empty.")
        return found

    wordings, held_out = lists(""), lists("held_out_")
    if not wordings:
        raise InstructionError(f"{path}: give training wordings in english = [...] or chinese = [...].")
    every = [wording.casefold() for group in (wordings, held_out) for texts in group.values() for wording in texts]
    if twice := next((wording for wording in every if every.count(wording) > 1), None):
        raise InstructionError(f"{path}: the wording {twice!r} stands there twice; training and held out must differ.")
    if not isinstance(settings.get("title"), str):
        raise InstructionError(f'{path}: a title is missing: title = "...".')
    share = settings.get("speech_alone", 0.0)
    if not isinstance(share, int | float) or not 0 <= share <= 1:
        raise InstructionError(f"{path}: speech_alone must be a number from 0 to 1.")
    for name, value in settings.items():
        if name not in (*CHOICES, "title", "speech_alone"):
            raise InstructionError(f"{path}: unknown key {name!r}; train/labels/instructions.py lists those there are.")
        if name in CHOICES and value not in CHOICES[name]:
            raise InstructionError(f"{path}: {name} must be one of {', '.join(map(str, CHOICES[name]))}.")
    return Task(path.stem, wordings=wordings, held_out=held_out, **settings)
