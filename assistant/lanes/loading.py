"""Loads the lanes: one LLM and one Whisper in memory, whichever lanes are wanted."""

from dataclasses import dataclass
from pathlib import Path

import torch

from assistant.files import CHECKPOINT, DEFAULT_LLM
from assistant.lanes.cascade import CascadeLane
from assistant.lanes.end_to_end import EndToEndLane
from assistant.lanes.lane import Lane
from assistant.lanes.model_lane import ModelLane
from assistant.lanes.names import CASCADE, END_TO_END, LANES
from assistant.limits import MAX_REPLY
from assistant.model.checkpoint import read_config, read_lora
from assistant.model.llm import load_llm
from assistant.model.speech_encoder import load_whisper
from assistant.model.speech_lm import load_speech_lm
from assistant.model.transcriber import Transcriber


@dataclass(frozen=True)
class ModelOptions:
    """What to load; the defaults run on any laptop. None takes the LLM that the checkpoint belongs to, if to any.

    Both lanes take any chat `llm`; `whisper` is free for the cascade alone, as `checkpoint` was trained on one.
    """

    llm: str | None = None
    whisper: str | None = None
    checkpoint: Path = CHECKPOINT
    precision: str = "auto"
    device: str = "auto"
    system: str = ""  # what every conversation begins with, on both lanes
    max_tokens: int = MAX_REPLY
    lanes: tuple[str, ...] = LANES


def load_lanes(options: ModelOptions | None = None) -> dict[str, Lane]:
    """The wanted lanes by name, end-to-end first, on one LLM and one Whisper, warmed up.

    Raises
    ------
    CheckpointError, WeightsError
        The checkpoint does not fit, or the base models cannot be had.
    """
    options = options or ModelOptions()
    name = options.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    config = read_config(options.checkpoint)
    speech = END_TO_END in options.lanes
    lora = read_lora(options.checkpoint, config) if speech else None
    # One after the other: transformers sets torch's default type for the whole process while it builds a model.
    llm = load_llm(options.llm or config.llm or DEFAULT_LLM, options.precision, device, lora)
    whisper = load_whisper(options.whisper or config.whisper, device)
    llm.system = options.system
    lanes: dict[str, ModelLane] = {}
    if speech:
        model = load_speech_lm(options.checkpoint, llm.precision, device, whisper, llm)
        lanes[END_TO_END] = EndToEndLane(model, llm, options.max_tokens)
    if CASCADE in options.lanes:
        lanes[CASCADE] = CascadeLane(Transcriber(whisper), llm, options.max_tokens)
    for lane in lanes.values():
        lane.warm_up()
    return dict(lanes)


def precision_in_words(lanes: dict[str, Lane]) -> str:
    """The precision that figures were measured with."""
    return " / ".join(sorted({lane.precision for lane in lanes.values()}))
