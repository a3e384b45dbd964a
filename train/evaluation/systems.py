"""The systems that are compared, all on one LLM in memory: what each puts before it, and the LoRA it answers with."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from assistant.files import DEFAULT_LLM
from assistant.lanes.names import CASCADE, END_TO_END
from assistant.model.checkpoint import CheckpointConfig, CheckpointError, read_config, read_lora
from assistant.model.llm import LLM, load_llm
from assistant.model.speech_lm import SpeechLM, load_speech_lm, reading
from train.evaluation.hearing import Hearing
from train.evaluation.store import Store
from train.questions.clips import Clip

UPPER_BOUND = "upper_bound"


@dataclass(frozen=True)
class System:
    """Hears `speech` through a checkpoint's connector, Whisper's `transcript`, or is given the true `text`."""

    name: str
    hears: Literal["speech", "transcript", "text"]
    checkpoint: Path | None = None

    @property
    def identity(self) -> str:
        """The hash of all that the system adds to Whisper and the LLM."""
        if self.checkpoint is None:
            return self.hears
        return _hash(self.checkpoint)


@cache
def _hash(checkpoint: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(checkpoint.iterdir()):
        if file.suffix in (".json", ".safetensors", ".txt"):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


class Bench:
    """The systems with the models they share. The LLM is loaded when it is first needed, and once.

    Raises
    ------
    CheckpointError
        A checkpoint is damaged, or was trained with another Whisper or LLM than the first.
    """

    def __init__(self, checkpoints: dict[str, Path], precision: str, device: torch.device) -> None:
        self._folders = checkpoints
        self._configs = {name: read_config(folder) for name, folder in checkpoints.items()}
        self.config: CheckpointConfig = self._configs[END_TO_END]
        # That of the checkpoints that belong to one, if any does.
        self.llm_name = next((config.llm for config in self._configs.values() if config.llm), DEFAULT_LLM)
        for name, config in self._configs.items():
            if config.whisper != self.config.whisper or not config.fits(self.llm_name):
                raise CheckpointError(
                    f"{checkpoints[name]} was trained with {config.whisper} and {config.llm or 'any LLM'}, not with "
                    f"{self.config.whisper} and {self.llm_name}: compare it in an evaluation of its own."
                )
        self.precision, self.device = precision, device
        speech = [System(name, "speech", folder) for name, folder in checkpoints.items()]
        self.systems = [speech[0], System(CASCADE, "transcript"), System(UPPER_BOUND, "text"), *speech[1:]]
        self._models: dict[str, SpeechLM] = {}
        self._llm: LLM | None = None
        self._settings: dict[str, Any] | None = None  # of the LoRA that the LLM carries
        self._owner = ""  # whose matrices those are

    @contextmanager
    def llm(self, system: System) -> Iterator[LLM]:
        """The LLM as the system uses it: the checkpoint's LoRA on for speech, none otherwise."""
        lora = self._lora(system.name)
        if self._llm is None or (lora and lora[0] != self._settings):
            # LoRA has to be there before the LLM is quantised, so it is even for a system without.
            owner = system.name if lora else next((name for name in self._configs if self._lora(name)), "")
            carried = self._lora(owner)
            self._llm = None  # only one at a time in memory
            self._models.clear()
            self._llm = load_llm(self.llm_name, self.precision, self.device, carried)
            self._settings, self._owner = (carried[0] if carried else None), owner
        if lora and self._owner != system.name:
            self._llm.swap_lora(lora[1])
            self._owner = system.name
        with self._llm.lora() if lora else nullcontext():
            yield self._llm

    def _lora(self, name: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        return read_lora(self._folders[name], self._configs[name]) if name in self._configs else None

    def has_lora(self, system: System) -> bool:
        """Whether the system's checkpoint changes the LLM."""
        config = self._configs.get(system.name)
        return config is not None and config.lora is not None

    def speech_lm(self, system: System) -> SpeechLM:
        """The model of a system that hears speech, on the LLM once that is loaded; until then it reads."""
        assert system.checkpoint is not None
        key = f"{system.name} {self._llm is not None}"
        if key not in self._models:
            self._models[key] = load_speech_lm(system.checkpoint, self.precision, self.device, llm=self._llm)
        return self._models[key]

    @torch.inference_mode()
    def content(self, system: System, clip: Clip, hearing: Hearing) -> Tensor | str:
        """What the LLM gets of a clip: vectors [n, llm_width], or words."""
        if system.hears != "speech":
            return self.words(system, clip, hearing)
        vectors = self.speech_lm(system).connect([hearing.features(clip)])[0].vectors
        assert vectors is not None, "what a clip is to an LLM is known once that is loaded"
        return vectors

    def words(self, system: System, clip: Clip, hearing: Hearing) -> str:
        """What a system that gets words gets."""
        return clip.text if system.hears == "text" else hearing.transcript(clip)

    @torch.inference_mode()
    def heard(self, system: System, clip: Clip, hearing: Hearing, store: Store) -> str | None:
        """What the system took the clip for, in words; None when its connector reads none."""
        if system.hears != "speech":
            return self.words(system, clip, hearing)

        def compute() -> str | None:
            model = self.speech_lm(system)
            return reading(model.connect([hearing.features(clip)])[0])[0]

        read: str | None = store.json("readings", [system.identity, hearing.digest(clip)], compute)
        return read
