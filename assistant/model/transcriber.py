"""Whisper as a recogniser, for the cascade: the same weights as the end-to-end lane's encoder."""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from whisper import DecodingOptions, DecodingResult, decode, pad_or_trim
from whisper.audio import N_FRAMES
from whisper.model import Whisper

from assistant.latency import StageClock
from assistant.limits import SILENCE_PEAK
from assistant.model.speech_encoder import split_segments
from assistant.sound.audio import SAMPLE_RATE, log_mel
from assistant.sound.endpointing import anybody_speaks

# Whisper's own remedies (Radford et al. 2022, section 4.5), each only where there is a reason for it:
REPEATED = 2.4  # how much smaller zlib makes a text that says the same again and again
WARMER = 0.4  # temperature of the second try at such a text
DOUBTFUL = -1.0  # mean log-probability below which ...
SILENT = 0.3  # ... or probability of silence above which somebody must be heard to speak (none of 170 real clips)
PACE = 5  # words a second: what repeats itself faster was not said
WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+")


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
        with clock.stage("features"):
            pieces = [piece for piece in split_segments(samples) if np.abs(piece).max(initial=0) >= SILENCE_PEAK]
            mels = [pad_or_trim(log_mel(piece, self.whisper.dims.n_mels), N_FRAMES) for piece in pieces]
        with clock.stage("encode"):
            encoded = [self.whisper.embed_audio(mel[None].to(self.whisper.device)) for mel in mels]
        with clock.stage("transcribe"):
            spoken = [self._read(segment, piece) for segment, piece in zip(encoded, pieces, strict=True)]
        return " ".join(text for text in spoken if text)

    def _read(self, encoded: Tensor, piece: np.ndarray) -> str:
        """The words of one segment [1, 1500, width] that was encoded from `piece` [n]."""
        result = self._decode(encoded)
        if (result.no_speech_prob > SILENT or result.avg_logprob < DOUBTFUL) and not anybody_speaks(piece):
            return ""
        longest = int(PACE * len(piece) / SAMPLE_RATE) + 1
        if self._loops(result, longest):
            warmer = self._decode(encoded, WARMER)
            if self._loops(warmer, longest):
                # Said again and again, and written more often than there was time for.
                words = list(WORD.finditer(result.text))
                return result.text[: words[min(longest, len(words)) - 1].end()].strip()
            result = warmer
        return result.text.strip()

    def _decode(self, encoded: Tensor, temperature: float = 0.0) -> DecodingResult:
        options = DecodingOptions(language=self.language, without_timestamps=True, fp16=False, temperature=temperature)
        with torch.random.fork_rng(devices=[]):  # the same recording gives the same words
            torch.manual_seed(0)
            return decode(self.whisper, encoded, options)[0]

    def _loops(self, result: DecodingResult, longest: int) -> bool:
        """Whether a text repeats itself for ever: a sentence that was truly said many times has an end and its time."""
        endless = len(result.tokens) >= self.whisper.dims.n_text_ctx // 2
        return result.compression_ratio > REPEATED and (endless or len(WORD.findall(result.text)) > longest)
