"""The end-to-end lane: speech vectors straight into the LLM, with LoRA on when the checkpoint has it."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from assistant.lanes.lane import Heard
from assistant.lanes.model_lane import ModelLane
from assistant.lanes.names import END_TO_END
from assistant.latency import StageClock
from assistant.limits import MAX_REPLY
from assistant.model.llm import LLM
from assistant.model.speech_lm import SpeechLM, reading


@dataclass
class EndToEndLane(ModelLane):
    """A speech-LLM that answers; `llm` is the one it was loaded with."""

    model: SpeechLM
    llm: LLM
    max_tokens: int = MAX_REPLY
    name: str = END_TO_END

    def hear(self, samples: np.ndarray, clock: StageClock) -> tuple[Tensor | str, Heard]:
        """See `ModelLane.hear`."""
        speech = self.model.hear(samples, clock)
        assert speech.vectors is not None, "the speech-LLM of a lane has its LLM"
        return speech.vectors, Heard(*reading(speech))
