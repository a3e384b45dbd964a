"""The speech-LLM: Whisper's encoder, the connector and the LLM as one model; what it hears, and what it read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from whisper.model import Whisper

from assistant.latency import StageClock
from assistant.model.checkpoint import CheckpointError, load_connector, read_config
from assistant.model.connector import Connector, pad_features
from assistant.model.heads import Speech
from assistant.model.llm import LLM
from assistant.model.speech_encoder import encode
from assistant.model.spelling import groups


@dataclass
class SpeechLM:
    """What is trained and shipped; `whisper` and `llm` are the very objects that the cascade uses.

    Either may be missing: without the LLM it reads words and answers nothing, without Whisper it takes features that
    were encoded before.
    """

    connector: Connector
    whisper: Whisper | None = None
    llm: LLM | None = None

    @torch.inference_mode()
    def hear(self, samples: np.ndarray, clock: StageClock | None = None) -> Speech:
        """Samples float32 [n] at 16 kHz -> what the LLM gets; times `features`, `encode` and `connect`."""
        assert self.whisper is not None, "only features can be connected without Whisper"
        clock = clock or StageClock(self.whisper.device)
        features = encode(self.whisper, samples, clock)
        with clock.stage("connect"):
            return self.connect([features])[0]

    def connect(self, clips: list[Tensor]) -> list[Speech]:
        """Encoder output [T_i, width] of each clip -> what the LLM gets of it, spelt as the LLM spells."""
        speeches: list[Speech] = self.connector(*pad_features(clips))
        return speeches


def reading(speech: Speech) -> tuple[str | None, tuple[float, ...] | None]:
    """What the connector read, greedily, and how sure it was of each word: as sure as of its least sure piece.

    Both None when it reads no words.
    """
    if speech.words is None or speech.confidence is None:
        return None, None
    text, sure = "".join(speech.words).strip(), speech.confidence.tolist()
    words = tuple(min(sure[part]) for part in groups(speech.words))
    return text, words if len(words) == len(text.split()) else None


def load_speech_lm(
    folder: Path,
    precision: str = "auto",
    device: torch.device | str = "cpu",
    whisper: Whisper | None = None,
    llm: LLM | None = None,
) -> SpeechLM:
    """The trained connector of a checkpoint, between whichever of its base models are in memory already.

    Raises
    ------
    CheckpointError
        The checkpoint belongs to another LLM or a Whisper of another width, or is damaged.
    """
    config = read_config(folder)
    if llm is not None and not config.fits(llm.name):
        bound = "LoRA weights" if config.lora is not None else "a linear projection"
        raise CheckpointError(
            f"{folder} has {bound} of {config.llm} and answers with that LLM alone, not with {llm.name}. Leave --llm "
            "away, or give a checkpoint without."
        )
    if whisper is not None and whisper.dims.n_audio_state != config.connector.encoder_width:
        raise CheckpointError(
            f"{folder} was trained on {config.whisper} (width {config.connector.encoder_width}); the Whisper loaded "
            f"has width {whisper.dims.n_audio_state}. Name the one it was trained on, or ask for the cascade alone."
        )
    embeddings = None if whisper is None else whisper.decoder.token_embedding.weight
    connector = load_connector(folder, config, llm.writer if llm else None, embeddings, precision, device)
    return SpeechLM(connector, whisper, llm)


def load_reader(folder: Path, whisper: Whisper) -> Callable[[np.ndarray], str]:
    """What a checkpoint reads in samples float32 [n] at 16 kHz, without its LLM; `whisper` is the checkpoint's.

    Raises
    ------
    CheckpointError
        See `load_speech_lm`; or the connector reads no words.
    """
    model = load_speech_lm(folder, whisper=whisper)
    if model.connector.vocabulary is None:
        raise CheckpointError(f"{folder} has no vocabulary projection: it reads no words.")

    def read(samples: np.ndarray) -> str:
        return reading(model.hear(samples))[0] or ""

    return read
