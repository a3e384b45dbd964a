"""What stage 2 learns from: self-powered samples, spoken conversations and silence, as chats with a wanted reply.

A target depends on nothing but the words that were spoken, so every cached recording of the words can carry it: samples
are joined with the feature cache by their text, and each time another recording is drawn.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from assistant.lanes import NOTHING_HEARD
from train.reply import Exchange, Spoken

NO_SPEECH = "no speech"


def instructed(instruction: str, words: str, after: bool = False) -> tuple[str | Spoken, ...]:
    """The user's turn: speech alone, in the form of `assistant.speech_lm.user_turn`, or with the instruction last."""
    instruction = instruction.strip().rstrip(".:")
    if not instruction:
        return (Spoken(words),)
    return (Spoken(words), f"\n{instruction}.") if after else (f"{instruction}: ", Spoken(words))


def read_lines(paths: Iterable[Path]) -> Iterator[dict[str, Any]]:
    """The objects of JSON-lines files."""
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)


def self_powered_exchange(line: dict[str, Any]) -> Exchange:
    """A line of `train.self_powered` as one turn and its target."""
    return Exchange((("user", instructed(line["instruction"], line["text"])),), line["target"], line["task"])


def transcription_exchange(text: str, instruction: str, after: bool) -> Exchange:
    """Speech recognition: what vanilla instruction tuning, and stage 1 through the LLM, learn."""
    return Exchange((("user", instructed(instruction, text, after)),), text, "recognition")


def no_speech_exchange(instruction: str) -> Exchange:
    """Silence, noise or a cough: the reply says that nothing was heard, whatever was asked."""
    return Exchange((("user", instructed(instruction, "")),), NOTHING_HEARD, NO_SPEECH)


def conversation_exchanges(line: dict[str, Any]) -> list[Exchange]:
    """A spoken conversation as one exchange for each of its replies, with everything before it (LLaSM, section 3.1)."""
    exchanges: list[Exchange] = []
    turns: list[tuple[Literal["user", "assistant"], tuple[str | Spoken, ...]]] = []
    for turn in line["turns"]:
        if "reply" in turn:
            exchanges.append(Exchange(tuple(turns), turn["reply"], "conversation"))
            turns.append(("assistant", (turn["reply"],)))
        else:
            turns.append(("user", (Spoken(turn["text"]),)))
    return exchanges
