"""The speech-LLM: Whisper's encoder, the connector and the LLM as one model; what it hears, and what it read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from whisper.model import Whisper

from assistant.latency import StageClock
from assistant.model.checkpoint import CheckpointError, load_connector, read_config
from assistant.model.connector import Connector, pad_features
from assistant.model.heads import Speech
from assistant.model.llm import LLM
from assistant.model.speech_encoder import encode
from assistant.model.spelling import respelt
from assistant.model.weights import llm_source


@dataclass
class SpeechLM:
    """What is trained and shipped; `whisper` and `llm` are the very objects that the cascade uses.

    Either may be missing: without the LLM it reads words and answers nothing, without Whisper it takes features that
    were encoded before. `tokenizer` is the LLM's, there or not.
    """

    connector: Connector
    tokenizer: PreTrainedTokenizerBase
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
        return self.connect_padded(*pad_features(clips))

    def connect_padded(self, features: Tensor, lengths: Tensor) -> list[Speech]:
        """The same for a padded batch [B, T, width] with `lengths` [B] real frames."""
        speeches: list[Speech] = self.connector(features, lengths)
        return speeches if self.llm is None else [respelt(speech, self.llm) for speech in speeches]

    def reading(self, speech: Speech) -> tuple[str | None, tuple[float, ...] | None]:
        """What the connector read, greedily, and how sure it was of each word: as sure as of its least sure token.

        Both None when it reads no words.
        """
        if speech.tokens is None or speech.confidence is None:
            return None, None
        text = str(self.tokenizer.decode(speech.tokens)).strip()
        words: list[float] = []
        for token, sure in zip(speech.tokens.tolist(), speech.confidence.tolist(), strict=True):
            if not words or str(self.tokenizer.decode([token])).startswith(" "):
                words.append(sure)
            words[-1] = min(words[-1], sure)
        return text, tuple(words) if len(words) == len(text.split()) else None


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
        The checkpoint was made for base models of other widths, or is damaged.
    """
    config = read_config(folder)
    if whisper is not None and whisper.dims.n_audio_state != config.connector.encoder_width:
        raise CheckpointError(
            f"{folder} was trained on {config.whisper} (width {config.connector.encoder_width}); the Whisper loaded "
            f"has width {whisper.dims.n_audio_state}. Name the one it was trained on, or ask for the cascade alone."
        )
    connector = load_connector(folder, config, llm.embeddings if llm else None, precision, device)
    tokenizer = llm.tokenizer if llm else AutoTokenizer.from_pretrained(llm_source(config.llm))
    return SpeechLM(connector, tokenizer, whisper, llm)


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
        return model.reading(model.hear(samples))[0] or ""

    return read
