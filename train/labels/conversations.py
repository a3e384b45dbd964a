"""Spoken conversations: text dialogues whose human turns are spoken and whose replies stay text (LLaSM, section 3.2).

    python -m train.labels.conversations assets/examples/conversations.json --out runs/conversations

Reads ShareGPT-style JSON: a list of {"id", "conversations": [{"from": "human" or "gpt", "value": "…"}, …]}. A
conversation ends before the first exchange that cannot be spoken or teaches nothing (code, addresses, symbols,
unreadable text, a turn that is too long, an empty or refusing answer); one of which nothing is left is dropped. One
voice speaks all of a conversation. Prints the counts of LLaSM's Table 1 and writes `manifest.jsonl`, which
`train.data.features` encodes like any other, and `conversations.jsonl`, which stage 2 learns from, a line a
conversation:

    {"turns": [{"text"}, {"reply"}, …], "language", "source", "id"}

It is a command of its own because `train.synthesis.synthesize` takes text files and folders of any name. Voices follow
from the seed and the conversation alone; clips that are there already are kept, so an interrupted run goes on.
"""

import hashlib
import json
import os
import random
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from assistant.files import read_text, write_json_lines
from train.command_line import Files, command_line, told
from train.data.manifest import refuse_held_out, write_manifest
from train.data.spoken_form import spell_numbers
from train.labels.target_filters import REFUSAL, language_of
from train.synthesis.engines import SHARES, available, draw_voice
from train.synthesis.synthesize import speak_to_file
from train.workers import shared_out

HUMAN, ASSISTANT = ("human", "user"), ("gpt", "assistant", "chatgpt", "bing", "bard")
LONGEST_SPOKEN, LONGEST_REPLY = 60, 250  # words; a Chinese character counts as one word

CODE = re.compile(
    r"```|`[^`]+`|</?\w+[^>]*>|\b(def|class|function|import|return|var|const|SELECT|#include)\b[^.?!]*[(){};=<]"
    r"|\w+\(\w*\)|[{}\\]|=>|==|;\s*$",
    re.MULTILINE,
)
ADDRESS = re.compile(r"https?:|www\.|\w@\w|\b\w+\.(com|org|net|io|html?|py|js)\b", re.IGNORECASE)
READABLE = re.compile(r"[A-Za-z0-9\s\u3400-\u9fff]")
PUNCTUATION = re.compile(r"[.,?!:;'\"()\-–—…%&/$£€*#+°’‘“”，。？！：；、（）《》「」·]")
NOTHING_SAID = re.compile(r"\W*(n/?a|none|null|nan|无|没有)?\W*", re.IGNORECASE)


class ConversationError(ValueError):
    """A file of dialogues cannot be read; the message says which and what to do."""


@dataclass(frozen=True)
class UsableDialogue:
    """What is left of one dialogue: exchanges of something said and the reply to it."""

    id: str
    source: str
    language: str
    exchanges: list[tuple[str, str]]


def unfit(text: str, longest: int) -> str | None:
    """Why a turn cannot be spoken, or None."""
    words = len(re.findall(r"[\u3400-\u9fff]|[A-Za-z0-9]+(?:['’][A-Za-z]+)?", text))
    if ADDRESS.search(text):
        return "address"
    if CODE.search(text):
        return "code"
    plain, punctuation = len(READABLE.findall(text)), len(PUNCTUATION.findall(text))
    if len(text) - plain - punctuation > 0.02 * len(text):
        return "unreadable"
    if punctuation > 0.2 * len(text) + 2 or re.search(r"([^\w\s.])\1{2,}", text):
        return "symbols"
    return "too long" if words > longest else None


def clean(dialogue: Any, source: str, dropped: Counter[str]) -> UsableDialogue | None:
    """The usable beginning of one ShareGPT dialogue; counts in `dropped` why it ends early or is not used at all."""
    turns = dialogue.get("conversations") if isinstance(dialogue, dict) else None
    if not isinstance(turns, list) or not all(
        isinstance(turn, dict) and isinstance(turn.get("from"), str) and isinstance(turn.get("value"), str)
        for turn in turns
    ):
        dropped["not a dialogue"] += 1
        return None
    turns = [turn for turn in turns if turn["from"] != "system"]
    while turns and turns[0]["from"] not in HUMAN:  # ShareGPT splits long conversations anywhere
        turns = turns[1:]
    exchanges: list[tuple[str, str]] = []
    reason = None if len(turns) > 1 else "no exchange"
    for asked, answered in zip(turns[::2], turns[1::2], strict=False):
        said, reply = " ".join(asked["value"].split()), answered["value"].strip()
        if asked["from"] not in HUMAN or answered["from"] not in ASSISTANT:
            reason = "turns out of order"
        elif NOTHING_SAID.fullmatch(said):
            reason = "empty turn"
        elif NOTHING_SAID.fullmatch(reply):
            reason = "empty answer"
        elif REFUSAL.search(reply):
            reason = "refusing answer"
        else:
            reason = unfit(said, LONGEST_SPOKEN) or unfit(reply, LONGEST_REPLY)
        if reason:
            break
        exchanges.append((said, reply))
    if reason:
        dropped[reason] += 1
    if not exchanges:
        return None
    language = language_of(" ".join(said for said, _ in exchanges))
    return UsableDialogue(str(dialogue.get("id", "")), source, language, exchanges)


def read_dialogues(path: Path) -> list[Any]:
    """The dialogues of a ShareGPT-style JSON file.

    Raises
    ------
    ConversationError
        It is missing, or not a JSON list.
    """
    try:
        dialogues = json.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise ConversationError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(dialogues, list):
        raise ConversationError(f'{path} must hold a JSON list of {{"id", "conversations": […]}}.')
    return dialogues


def speaking_jobs(conversation: UsableDialogue, out: Path, seed: int) -> list[dict[str, Any]]:
    """A job of `synthesize` for every human turn, all in one voice; files are named after what they hold."""
    shares = {name: share for name, share in SHARES[conversation.language].items() if available(name)}
    if not shares:
        raise ConversationError(f"No engine here speaks {conversation.language}. Install espeak-ng.")
    said = [said for said, _ in conversation.exchanges]
    digest = hashlib.sha256(json.dumps([seed, conversation.source, conversation.id, said]).encode()).hexdigest()[:16]
    rng = random.Random(digest)
    engine = rng.choices(list(shares), list(shares.values()))[0]
    voice = draw_voice(engine, rng, conversation.language)
    return [
        {
            "audio": str(out / "clips" / digest[:2] / f"{digest}-{turn}.flac"),
            "spoken": spell_numbers(text),
            "engine": engine,
            "voice": voice,
            "seed": rng.randrange(2**31),
        }
        for turn, text in enumerate(said)
    ]


def table(conversations: list[UsableDialogue]) -> str:
    """Conversations, samples (exchanges) and samples by language for every source: the counts of LLaSM's Table 1."""
    lines = ["| source | conversations | samples | English | Chinese |", "|---|---|---|---|---|"]
    for source in [*sorted({conversation.source for conversation in conversations}), "total"]:
        mine = [c for c in conversations if source in (c.source, "total")]
        by_language = [sum(len(c.exchanges) for c in mine if c.language == name) for name in ("english", "chinese")]
        lines.append(f"| {source} | {len(mine):,} | {sum(by_language):,} | {by_language[0]:,} | {by_language[1]:,} |")
    return "\n".join(lines)


def _line(conversation: UsableDialogue, clips: list[dict[str, Any]]) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    for (_, reply), clip in zip(conversation.exchanges, clips, strict=True):
        turns += [{"text": clip["text"]}, {"reply": reply}]
    return {"turns": turns, "language": conversation.language, "source": conversation.source, "id": conversation.id}


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("dialogues", type=Path, nargs="+", action=Files, help="ShareGPT-style JSON files")
    parser.add_argument("--limit", type=int, help="only the first dialogues of each file")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    dropped: Counter[str] = Counter()
    try:
        refuse_held_out(arguments.dialogues)
        cleaned = [
            clean(dialogue, path.stem, dropped)
            for path in arguments.dialogues
            for dialogue in read_dialogues(path)[: arguments.limit]
        ]
        conversations = [conversation for conversation in cleaned if conversation]
        jobs = [speaking_jobs(conversation, arguments.out, arguments.seed) for conversation in conversations]
    except ValueError as error:
        parser.error(str(error))
    everything = [job for turns in jobs for job in turns]
    spoken = shared_out(speak_to_file, everything, arguments.processes, chunk=8)
    clips = iter(list(tqdm(spoken, total=len(everything), desc="Speaking", unit=" turns")))
    kept, lines, entries = [], [], []
    for conversation, turns in zip(conversations, jobs, strict=True):
        said = [next(clips) for _ in turns]
        if all(said):
            kept.append(conversation)
            spoken_clips = [clip for clip in said if clip]
            entries += spoken_clips
            lines.append(_line(conversation, spoken_clips))
        else:
            dropped["could not be spoken"] += 1
    write_json_lines(arguments.out / "conversations.jsonl", lines)
    write_manifest(arguments.out / "manifest.jsonl", entries)
    hours = sum(entry["duration"] for entry in entries) / 3600
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items())) or "none"
    print(f"{table(kept)}\n\n{hours:.2f} h of speech. Dialogues cut short or dropped: {reasons}.")


if __name__ == "__main__":
    main()
