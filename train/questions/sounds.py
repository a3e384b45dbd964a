"""Recordings in which nobody speaks, made from a seed: what an assistant meets between two questions."""

from collections.abc import Callable

import numpy as np

from assistant.sound.audio import SAMPLE_RATE


def silence(length: int, rng: np.random.Generator) -> np.ndarray:
    """A microphone that is off: zeros."""
    return np.zeros(length)


def white_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Equal power at all frequencies: a fan, a bad cable."""
    return rng.standard_normal(length) * 0.05


def brown_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Power falling with the square of the frequency, from 30 Hz up: wind, traffic far away."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    noise = np.fft.irfft(spectrum / np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 30), length)
    return noise * 0.1 / noise.std()


def hum(length: int, rng: np.random.Generator) -> np.ndarray:
    """The mains at 50 or 60 Hz with falling harmonics."""
    time, base = np.arange(length) / SAMPLE_RATE, rng.choice([50, 60])
    return sum((0.1 / n * np.sin(2 * np.pi * (base * n * time + rng.random())) for n in range(1, 8)), np.zeros(length))


def clicks(length: int, rng: np.random.Generator) -> np.ndarray:
    """Keys or switches: one to four bursts of 3 ms a second."""
    samples, burst = np.zeros(length), SAMPLE_RATE * 3 // 1000
    for start in rng.integers(0, length - burst, int(length / SAMPLE_RATE * rng.uniform(1, 4))):
        samples[start : start + burst] += rng.standard_normal(burst) * np.linspace(0.5, 0, burst)
    return samples


def cough(length: int, rng: np.random.Generator) -> np.ndarray:
    """One to three bursts of coloured noise: a sharp onset, 0.25 s of decay, energy around 500 to 1,500 Hz."""
    samples = rng.standard_normal(length) * 1e-3
    for _ in range(rng.integers(1, 4)):
        size = int(0.25 * SAMPLE_RATE)
        frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
        band = np.exp(-(((frequency - rng.uniform(500, 1500)) / 700) ** 2))
        burst = np.fft.irfft(np.fft.rfft(rng.standard_normal(size)) * band, size)
        start = rng.integers(0, length - size)
        samples[start : start + size] += 0.5 * burst / np.abs(burst).max() * np.exp(-np.linspace(0, 6, size))
    return samples


SOUNDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "silence": silence,
    "white noise": white_noise,
    "brown noise": brown_noise,
    "hum": hum,
    "clicks": clicks,
    "cough": cough,
}
