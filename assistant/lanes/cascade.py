"""The cascade: Whisper transcribes, then the same LLM, without LoRA, answers the transcript."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from assistant.lanes.lane import Heard
from assistant.lanes.model_lane import ModelLane
from assistant.lanes.names import CASCADE
from assistant.latency import StageClock
from assistant.limits import MAX_REPLY
from assistant.model.llm import LLM
from assistant.model.transcriber import Transcriber


@dataclass
class CascadeLane(ModelLane):
    """A recogniser before an LLM."""

    transcriber: Transcriber
    llm: LLM
    max_tokens: int = MAX_REPLY
    name: str = CASCADE

    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, Heard]:
        """See `ModelLane.hear`."""
        transcript = self.transcriber.transcribe(samples, clock)
        return transcript, Heard(transcript)
