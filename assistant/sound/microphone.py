"""The microphone of this machine as a live stream of 16 kHz samples."""

import queue
import time
from typing import Any

import numpy as np

from assistant.sound.audio import SAMPLE_RATE, LiveResampler
from assistant.sound.sound_devices import Device, SoundDeviceError, open_stream

LOST = "The microphone is gone. Plug it in again; listening goes on by itself."
WAITING = 1000  # blocks that may wait to be read: half a minute; then the oldest are dropped
PATIENCE = 3.0  # seconds without any sound after which a microphone counts as unplugged


class Microphone:
    """Open from the moment it is made until `close`; captures at the device's own rate when 16 kHz is refused.

    Raises SoundDeviceError when it cannot be opened; `refresh` looks for newly plugged in devices first.
    """

    def __init__(self, device: Device = None, refresh: bool = False) -> None:
        self._blocks: queue.Queue[np.ndarray] = queue.Queue(WAITING)
        self._stream, rate = open_stream("input", device, SAMPLE_RATE, self._hear, refresh)
        self._resampler = LiveResampler(rate)
        self._last = time.monotonic()

    def read(self, timeout: float = 0.1) -> np.ndarray:
        """All samples float32 [n] that came since; empty when none came within `timeout` seconds.

        Raises
        ------
        SoundDeviceError
            The microphone was unplugged. What was said before has been read.
        """
        blocks = []
        try:
            blocks.append(self._blocks.get(timeout=timeout))
            while True:
                blocks.append(self._blocks.get_nowait())
        except queue.Empty:
            pass
        if blocks:
            self._last = time.monotonic()
            return self._resampler.feed(np.concatenate(blocks))
        if not self._stream.active or time.monotonic() - self._last > PATIENCE:
            raise SoundDeviceError(LOST)
        return np.zeros(0, np.float32)

    def close(self) -> None:
        """Hand the device back."""
        self._stream.close()

    def _hear(self, block: np.ndarray, frames: int, when: Any, status: Any) -> None:
        if self._blocks.full():
            self._blocks.get_nowait()
        self._blocks.put_nowait(block.copy())


def level(samples: np.ndarray) -> float:
    """How loud samples are, in dB below full scale (0 is the loudest), at least -60."""
    power = float(np.mean(samples**2)) if len(samples) else 0.0
    return max(-60.0, 10 * float(np.log10(max(power, 1e-6))))
