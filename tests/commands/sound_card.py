"""A sound card made of arrays, in the place of `sounddevice`: what it hears is given, what it plays is kept."""

import threading
import time
import types
from typing import Any

import numpy as np
import pytest


class PortAudioError(Exception):
    """As in sounddevice."""


class SoundCard(types.ModuleType):
    """Microphone and loudspeaker at `rate` Hz, the only one they accept, `speed` times faster than real ones."""

    PortAudioError = PortAudioError

    def __init__(self, rate: int = 16_000, speed: float = 4.0, microphones: int = 1, loudspeakers: int = 1) -> None:
        super().__init__("sounddevice")
        self.rate, self.speed = rate, speed
        self.channels = {"input": microphones, "output": loudspeakers}
        self.to_hear: list[np.ndarray] = []  # the microphone delivers these, then silence
        self.played: list[np.ndarray] = []
        self.unplugged = False
        self.refused: list[int] = []  # rates that were asked for in vain
        self.opened = 0
        self.InputStream = lambda **options: _Stream(self, "input", **options)
        self.OutputStream = lambda **options: _Stream(self, "output", **options)

    def install(self, monkeypatch: pytest.MonkeyPatch) -> "SoundCard":
        """Be what `import sounddevice` finds."""
        monkeypatch.setitem(__import__("sys").modules, "sounddevice", self)
        return self

    def query_devices(self, device: int | str | None = None, kind: str | None = None) -> Any:
        about = {"name": "Test card", "default_samplerate": float(self.rate)}
        about |= {f"max_{way}_channels": count for way, count in self.channels.items()}  # type: ignore[dict-item]
        if kind is None:
            return [about] if any(self.channels.values()) else []
        if self.unplugged or not self.channels[kind]:
            raise PortAudioError("Error querying device -1")
        if device not in (None, 0, "Test"):
            raise ValueError(f"No {kind} device matching {device!r}")
        return about

    def say(self, samples: np.ndarray) -> None:
        """Speak into the microphone: float32 [n] at the card's rate."""
        self.to_hear.append(samples)

    def _terminate(self) -> None:
        pass

    def _initialize(self) -> None:
        self.opened += 1


class _Stream:
    latency = 0.01

    def __init__(
        self, card: SoundCard, way: str, samplerate: int, channels: int, blocksize: int, callback: Any, **_: Any
    ) -> None:
        if samplerate != card.rate:
            card.refused.append(samplerate)
            raise PortAudioError("Invalid sample rate", -9997)
        self.card, self.way, self.channels, self.block, self.callback = card, way, channels, blocksize, callback
        self.active = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self.active = True
        self._thread.start()

    def close(self) -> None:
        self.active = False

    def _run(self) -> None:
        waiting = np.zeros(0, np.float32)
        next_block = time.monotonic()
        while self.active and not self.card.unplugged:
            if self.way == "input":
                while self.card.to_hear and len(waiting) < self.block:
                    waiting = np.concatenate([waiting, self.card.to_hear.pop(0)])
                block = np.zeros((self.block, self.channels), np.float32)
                block[: len(waiting[: self.block])] = waiting[: self.block, None]
                waiting = waiting[self.block :]
                self.callback(block, self.block, None, None)
            else:
                block = np.full((self.block, self.channels), np.nan, np.float32)
                self.callback(block, self.block, None, None)
                self.card.played.append(block[:, 0].copy())
            next_block += self.block / self.card.rate / self.card.speed
            time.sleep(max(0.0, next_block - time.monotonic()))
        self.active = False
