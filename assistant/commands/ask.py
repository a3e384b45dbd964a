"""`launch.py ask`: one clip after another put to the lanes, shown as it comes or told as an object for programs."""

from pathlib import Path
from typing import Any

from assistant.files import printable
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Heard, Lane, Reply, TextDelta, as_record
from assistant.lanes.names import HEARD_AS, typed
from assistant.latency import hardware, in_words
from assistant.sound.audio import Utterance


def as_object(path: Path, clip: Utterance, instruction: str | None, lanes: dict[str, Lane]) -> dict[str, Any]:
    """One clip's answers in the form that programs read. Raises AudioError when a lane hears nothing in it."""
    answers = {}
    for name, lane in lanes.items():
        reply = lane.reply(Turn.spoken(clip, instruction))
        answers[name] = as_record(name, reply.text, reply.heard, reply.latency)
    about = {"audio": str(path), "duration_s": round(clip.duration, 3), "instruction": instruction}
    return {**about, "hardware": hardware(), "lanes": answers}


def tell(path: Path, clip: Utterance, instruction: str | None, lanes: dict[str, Lane]) -> None:
    """One clip's answers as they come, each with where its time went. Raises AudioError as `as_object` does."""
    print(f"{printable(path)} ({clip.duration:.1f} s)")
    for name, lane in lanes.items():
        print(f"\n{typed(name)}")
        for chunk in lane.answer(Turn.spoken(clip, instruction)):
            if isinstance(chunk, Heard) and chunk.text is not None:
                print(f"  {HEARD_AS[name]}: {chunk.text}")
            elif isinstance(chunk, TextDelta):
                print(chunk.text, end="", flush=True)
            elif isinstance(chunk, Reply):
                print(f"\n  {in_words(chunk.latency)}")
    print()
