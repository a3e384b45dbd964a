"""What stage 2 learns from: self-powered samples, spoken conversations and silence, as chats with a wanted reply.

A target depends on nothing but the words that were spoken, so every cached recording of the words can carry it: samples
are joined with the feature cache by their text, and each time another recording is drawn.
"""

from dataclasses import dataclass
from typing import Any, Literal

from assistant.lanes.lane import NOTHING_HEARD

SILENCE = "no speech"  # the task of an example in which nobody speaks


@dataclass(frozen=True)
class Spoken:
    """The place of a recording in a chat: any recording of these words will do. No words: a recording of no speech."""

    text: str


@dataclass(frozen=True)
class Example:
    """A chat up to the reply that is learnt; the parts of a turn are written text and recordings."""

    turns: tuple[tuple[str, tuple[str | Spoken, ...]], ...]  # role, parts
    target: str
    task: str

    @property
    def spoken(self) -> list[str]:
        """The words of the chat's recordings, in order."""
        return [part.text for _, parts in self.turns for part in parts if isinstance(part, Spoken)]


def instructed(instruction: str, words: str, after: bool = False) -> tuple[str | Spoken, ...]:
    """The user's turn: speech alone, in the form of `prompt.user_turn`, or with the instruction last."""
    instruction = instruction.strip().rstrip(".:")
    if not instruction:
        return (Spoken(words),)
    return (Spoken(words), f"\n{instruction}.") if after else (f"{instruction}: ", Spoken(words))


def self_powered_example(line: dict[str, Any]) -> Example:
    """A line of `train.labels.self_powered` as one turn and its target."""
    return Example((("user", instructed(line["instruction"], line["text"])),), line["target"], line["task"])


def transcription_example(text: str, instruction: str, after: bool) -> Example:
    """Speech recognition: what vanilla instruction tuning, and stage 1 through the LLM, learn."""
    return Example((("user", instructed(instruction, text, after)),), text, "recognition")


def no_speech_example(instruction: str) -> Example:
    """Silence, noise or a cough: the reply says that nothing was heard, whatever was asked."""
    return Example((("user", instructed(instruction, "")),), NOTHING_HEARD, SILENCE)


def conversation_examples(line: dict[str, Any]) -> list[Example]:
    """A spoken conversation as one example for each of its replies, with everything before it (LLaSM, section 3.1)."""
    examples: list[Example] = []
    turns: list[tuple[Literal["user", "assistant"], tuple[str | Spoken, ...]]] = []
    for turn in line["turns"]:
        if "reply" in turn:
            examples.append(Example(tuple(turns), turn["reply"], "conversation"))
            turns.append(("assistant", (turn["reply"],)))
        else:
            turns.append(("user", (Spoken(turn["text"]),)))
    return examples
