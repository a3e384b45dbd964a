"""Whisper as a recogniser, for the cascade: the same weights as the end-to-end lane's encoder."""

from dataclasses import dataclass

import numpy as np
import torch
from whisper import DecodingOptions, decode, pad_or_trim
from whisper.audio import N_FRAMES
from whisper.model import Whisper

from assistant.latency import StageClock
from assistant.model.speech_encoder import speech_mels

SILENT = 0.6  # Whisper's own limits (Radford et al. 2022, section 4.5): above this probability of silence ...
DOUBTFUL = -1.0  # ... and below this mean log-probability a transcript is a hallucination


@dataclass
class Transcriber:
    """Greedy `openai-whisper` decoding, padded to 30 s as Whisper was trained, segment by segment."""

    whisper: Whisper
    language: str = "en"

    @torch.inference_mode()
    def transcribe(self, samples: np.ndarray, clock: StageClock) -> str:
        """Samples float32 [n] at 16 kHz -> transcript, empty when nobody spoke.

        Times `features`, `encode` and `transcribe`.
        """
        options = DecodingOptions(language=self.language, without_timestamps=True, fp16=False)
        device = self.whisper.device
        with clock.stage("features"):
            mels = [pad_or_trim(mel, N_FRAMES) for mel in speech_mels(samples, self.whisper.dims.n_mels)]
        with clock.stage("encode"):
            encoded = [self.whisper.embed_audio(mel[None].to(device)) for mel in mels]
        with clock.stage("transcribe"):
            results = [decode(self.whisper, segment, options)[0] for segment in encoded]
        spoken = [r.text.strip() for r in results if r.no_speech_prob < SILENT or r.avg_logprob > DOUBTFUL]
        return " ".join(text for text in spoken if text)
