"""The speech-LLM: frozen Whisper encoder, connector and LLM as one model, and the prompt both lanes share."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from whisper.model import Whisper

from assistant.checkpoint import CheckpointConfig, CheckpointError, load_connector
from assistant.connector import Connector, Speech, pad_features
from assistant.latency import StageClock
from assistant.llm import LLM, Message, Prompt
from assistant.speech_encoder import encode, speech_mels
from assistant.spelling import respelt


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
            return respelt(self.connector(*pad_features([features]))[0], self.llm)

    def reading(self, speech: Speech) -> tuple[str | None, tuple[float, ...] | None]:
        """What the connector read, greedily, and how sure it was of each word: as sure as of its least sure token.

        Both None when its projection does not read words.
        """
        if speech.tokens is None or speech.confidence is None:
            return None, None
        text = str(self.llm.tokenizer.decode(speech.tokens)).strip()
        words: list[float] = []
        for token, sure in zip(speech.tokens.tolist(), speech.confidence.tolist(), strict=True):
            if not words or str(self.llm.tokenizer.decode([token])).startswith(" "):
                words.append(sure)
            words[-1] = min(words[-1], sure)
        return text, tuple(words) if len(words) == len(text.split()) else None

    def prompt(self, messages: Sequence[Message]) -> Prompt:
        """A chat in which any turn may hold any number of clips (`Speech.vectors`) between its texts."""
        return self.llm.prompt(messages)


def user_turn(speech: Tensor | str | Sequence[Tensor | str], text: str | None) -> Message:
    """The turn both lanes put to the LLM: speech vectors here, a transcript there, and nothing else different.

    `speech` is one clip or any number of them.

    Speech alone is an instruction; with a written instruction it is the content that the instruction is about, in the
    form in which Self-Powered LSM puts a transcript to its LLM: "instruction: content". Text alone is itself.
    """
    text = (text or "").strip()
    clips = [speech] if isinstance(speech, str | Tensor) else speech
    if not clips:
        return Message("user", [text])
    spoken = [part for clip in clips for part in ("\n", clip)][1:]
    instruction = text.rstrip(".:")
    return Message("user", [f"{instruction}: ", *spoken] if instruction else spoken)


def load_speech_lm(folder: Path, config: CheckpointConfig, whisper: Whisper, llm: LLM) -> SpeechLM:
    """The trained connector of a checkpoint between two base models that are already in memory.

    Raises
    ------
    CheckpointError
        The checkpoint was made for base models of other widths, or is damaged.
    """
    if whisper.dims.n_audio_state != config.connector.encoder_width:
        raise CheckpointError(
            f"{folder} was trained on {config.whisper} (width {config.connector.encoder_width}); the Whisper loaded "
            f"has width {whisper.dims.n_audio_state}. Name the one it was trained on, or ask for the cascade alone."
        )
    connector = load_connector(folder, config, llm.embeddings, llm.precision, llm.device)
    return SpeechLM(config, whisper, connector, llm)
