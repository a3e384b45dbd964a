"""The runtime of Earshot: speech in, two lanes of streamed text and speech out. Knows neither `ui` nor `train`.

What a program needs of it:

>>> from assistant import Turn, load_lanes, load_utterance
>>> lanes = load_lanes()
>>> for chunk in lanes["end_to_end"].answer(Turn.spoken(load_utterance("question.wav"))):
...     ...  # Heard, then TextDelta after TextDelta, then one Reply with its Latency
"""

import importlib
from typing import TYPE_CHECKING, Any

from assistant import process

if TYPE_CHECKING:
    from assistant.lanes.conversation import Conversation
    from assistant.lanes.dialogue import Turn
    from assistant.lanes.lane import Heard, Reply, TextDelta
    from assistant.lanes.loading import ModelOptions, load_lanes
    from assistant.sound.audio import AudioError, load_utterance

process.prepare()

__all__ = [
    "AudioError",
    "Conversation",
    "Heard",
    "ModelOptions",
    "Reply",
    "TextDelta",
    "Turn",
    "load_lanes",
    "load_utterance",
]

# Imported when they are asked for: `launch.py` imports this package before anything is installed.
_HOME = {
    "AudioError": "assistant.sound.audio",
    "Conversation": "assistant.lanes.conversation",
    "Heard": "assistant.lanes.lane",
    "ModelOptions": "assistant.lanes.loading",
    "Reply": "assistant.lanes.lane",
    "TextDelta": "assistant.lanes.lane",
    "Turn": "assistant.lanes.dialogue",
    "load_lanes": "assistant.lanes.loading",
    "load_utterance": "assistant.sound.audio",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'assistant' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
