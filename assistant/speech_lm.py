"""The speech-LLM: frozen Whisper encoder, connector and LLM as one model, and the prompt both lanes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor
from whisper.model import Whisper

from assistant.checkpoint import LORA, CheckpointConfig, CheckpointError, read_config, read_connector
from assistant.connector import Connector, Speech, pad_features
from assistant.latency import StageClock
from assistant.llm import LLM, Message, Prompt, load_llm
from assistant.speech_encoder import encode, load_whisper, speech_mels


@dataclass
class SpeechLM:
    """What is trained and shipped; `llm` and `whisper` are the very objects that the cascade uses."""

    config: CheckpointConfig
    whisper: Whisper
    connector: Connector
    llm: LLM

    @torch.inference_mode()
    def hear(self, samples: np.ndarray, clock: StageClock) -> Speech:
        """Samples float32 [n] at 16 kHz -> vectors for the LLM; times `features`, `encode` and `connect`."""
        with clock.stage("features"):
            mels = speech_mels(samples, self.whisper.dims.n_mels)
        with clock.stage("encode"):
            features = encode(self.whisper.encoder, mels)
        with clock.stage("connect"):
            return self.connector(*pad_features([features]))[0]

    def reading(self, speech: Speech) -> str | None:
        """The words the connector read, greedily; None when its projection does not read words."""
        return None if speech.tokens is None else str(self.llm.tokenizer.decode(speech.tokens)).strip()

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A chat in which any turn may hold any number of clips (`Speech.vectors`) between its texts."""
        return self.llm.prompt(messages)


def user_turn(speech: Tensor | str, instruction: str | None) -> Message:
    """The turn both lanes put to the LLM: speech vectors here, a transcript there, and nothing else different.

    Speech alone is an instruction; with a written instruction it is the content that the instruction is about, in the
    form in which Self-Powered LSM puts a transcript to its LLM: "instruction: content".
    """
    instruction = (instruction or "").strip().rstrip(".:")
    return Message("user", [f"{instruction}: ", speech] if instruction else [speech])


def load_speech_lm(
    folder: Path, llm: str | None, whisper: str | None, precision: str, device: torch.device
) -> SpeechLM:
    """Load a checkpoint with its base models; `llm` and `whisper` replace those that the checkpoint names.

    Raises
    ------
    CheckpointError, WeightsError
        The checkpoint does not fit or the base models cannot be had.
    """
    config = read_config(folder)
    lora = (config.lora, load_file(folder / LORA)) if config.lora else None
    language_model = load_llm(llm or config.llm, precision, device, lora)
    connector = read_connector(folder, config, language_model.embeddings).to(device)
    encoder = load_whisper(whisper or config.whisper, device)
    if encoder.dims.n_audio_state != config.connector.encoder_width:
        raise CheckpointError(
            f"{folder} was trained on {config.whisper} (width {config.connector.encoder_width}); "
            f"{whisper} has width {encoder.dims.n_audio_state}. Name the Whisper it was trained on."
        )
    return SpeechLM(config, encoder, connector, language_model)
