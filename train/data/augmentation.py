"""What rooms, microphones and telephones do to speech, drawn at random from a seed."""

import numpy as np
import soxr

from assistant.sound.audio import SAMPLE_RATE


def augment(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speed, reverberation, band limit, noise and level, each with its own chance, on samples [n] at 16 kHz."""
    if rng.random() < 0.5:
        samples = change_speed(samples, rng.uniform(0.9, 1.1))
    if rng.random() < 0.25:
        samples = reverberate(samples, rng)
    if rng.random() < 0.15:
        samples = soxr.resample(soxr.resample(samples, SAMPLE_RATE, 8000), 8000, SAMPLE_RATE)
    if rng.random() < 0.4:
        samples = add_noise(samples, rng.uniform(8, 30), rng)
    return (samples * (10 ** rng.uniform(-1.0, 0.0) / max(np.abs(samples).max(initial=0), 1e-6))).astype(np.float32)


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Faster (and higher) above 1, slower below: another speaker at another pace."""
    return soxr.resample(samples, SAMPLE_RATE * factor, SAMPLE_RATE)


def reverberate(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A room: the direct sound, then noise that falls by 60 dB in 0.1 to 0.5 s."""
    decay = rng.uniform(0.1, 0.5)
    time = np.arange(int(decay * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / decay)
    response = tail / np.sqrt((tail**2).sum()) * 10 ** rng.uniform(-1.0, -0.2)
    response[0] = 1
    size = len(samples) + len(response)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return wet[: len(samples)].astype(np.float32)


def add_noise(samples: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    """Stationary noise with a random spectral slope (white to brown) at a signal-to-noise ratio in dB."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    frequency = np.maximum(np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE), 50)
    noise = np.fft.irfft(spectrum * frequency ** -rng.uniform(0, 1), len(samples))
    scale = np.sqrt((samples**2).mean() / max((noise**2).mean(), 1e-12) / 10 ** (decibels / 10))
    return (samples + noise * scale).astype(np.float32)
