"""The loudspeaker of this machine: plays pieces of a spoken reply in order, and knows what was said."""

import threading
from collections import deque
from typing import Any

import numpy as np
import soxr

from assistant.sound.sound_devices import Device, open_stream
from assistant.voice.spoken_reply import Sound, words_heard

RATE = 24_000  # Hz, the voices'


class Loudspeaker:
    """Open from the moment it is made until `close`. Raises SoundDeviceError when it cannot be opened."""

    def __init__(self, device: Device = None) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[tuple[np.ndarray, str]] = deque()
        self._position = 0  # samples of the first waiting piece that were played
        self._said: list[str] = []
        self._stream, self._rate = open_stream("output", device, RATE, self._fill)

    @property
    def latency(self) -> float:
        """Milliseconds from `play` until it can be heard."""
        return float(self._stream.latency) * 1000

    @property
    def playing(self) -> bool:
        """Whether something is being said."""
        return bool(self._waiting) and self.alive

    @property
    def alive(self) -> bool:
        """Whether the device is still there."""
        return bool(self._stream.active)

    def play(self, sound: Sound) -> None:
        """Say this after what is waiting. Returns at once."""
        samples = sound.samples
        if sound.rate != self._rate:
            samples = soxr.resample(samples, sound.rate, self._rate)
        with self._lock:
            if not self._waiting:
                self._position = 0
            self._waiting.append((samples, sound.text))

    def stop(self) -> str:
        """Be silent at once. Returns what was said since the last call, to the word."""
        with self._lock:
            said = "".join(self._said)
            if self._waiting:
                samples, text = self._waiting[0]
                said += words_heard(text, self._position / len(samples))
            self._waiting.clear()
            self._said.clear()
            return said

    def close(self) -> None:
        """Hand the device back."""
        self._stream.close()

    def _fill(self, block: np.ndarray, frames: int, when: Any, status: Any) -> None:
        """Called by PortAudio for the next `frames` samples: block [frames, channels]."""
        filled = 0
        with self._lock:
            while self._waiting and filled < frames:
                samples, text = self._waiting[0]
                part = samples[self._position : self._position + frames - filled]
                block[filled : filled + len(part)] = part[:, None]
                filled += len(part)
                self._position += len(part)
                if self._position >= len(samples):
                    self._waiting.popleft()
                    self._said.append(text)
                    self._position = 0
        block[filled:] = 0
