"""What Whisper makes of each clip, once for all systems: encoder output for connectors, transcript for the cascade."""

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from tqdm import tqdm

from assistant.latency import StageClock
from assistant.model.speech_encoder import encode, load_whisper
from assistant.model.transcriber import Transcriber
from assistant.sound.audio import AudioError, load_utterance
from train.data.spoken_form import CHINESE
from train.evaluation.store import Store
from train.questions.clips import Clip


class Hearing:
    """Features and transcripts, kept in the store; `refusals` says why a clip cannot be listened to."""

    def __init__(self, whisper: str, store: Store, device: torch.device) -> None:
        self.refusals: dict[str, str] = {}
        self._whisper_name, self._store, self._device = whisper, store, device
        self._whisper = load_whisper(whisper, device)
        self._digests: dict[str, str] = {}

    def listen(self, clips: Iterable[Clip]) -> None:
        """Encode and transcribe whatever has not been."""
        distinct = {self.digest(clip): clip for clip in tqdm(list(clips), desc="Looking at clips", leave=False)}
        for clip in tqdm(distinct.values(), desc="Listening", unit=" clips"):
            try:
                self.transcript(clip)
                self.features(clip)
            except AudioError as error:
                self.refusals[self.digest(clip)] = str(error)

    def refusal(self, clip: Clip) -> str | None:
        """What the assistant says to a recording that it does not pass on to a model, such as digital silence."""
        return self.refusals.get(self.digest(clip))

    def digest(self, clip: Clip) -> str:
        """The hash of the clip's file."""
        key = str(clip.audio)
        if key not in self._digests:
            self._digests[key] = hashlib.sha256(clip.audio.read_bytes()).hexdigest()
        return self._digests[key]

    def features(self, clip: Clip) -> torch.Tensor:
        """Encoder output float32 [T, width] on the device; the store holds it in float16, as training does."""

        def compute() -> np.ndarray:
            return np.asarray(encode(self._whisper, load_utterance(clip.audio).resampled()).half().cpu().numpy())

        kept = self._store.array("features", [self._whisper_name, self.digest(clip)], compute)
        return torch.from_numpy(kept).float().to(self._device)

    def transcript(self, clip: Clip) -> str:
        """The cascade's transcript. Whisper is told the language: Chinese where the text has any, else English."""
        language = "zh" if CHINESE.search(clip.text) else "en"

        def compute() -> str:
            samples = load_utterance(clip.audio).resampled()
            return Transcriber(self._whisper, language).transcribe(samples, StageClock(self._device))

        return str(self._store.json("transcripts", [self._whisper_name, language, self.digest(clip)], compute))
