"""Sounds without words, so that nothing is learnt from them: silence, noise, hum, clicks, knocks and coughs.

    python -m train.synthesis.no_speech --out runs/no_speech --count 600

Every clip follows from the seed and its number. The transcript is empty and the source
`manifest.WITHOUT_SPEECH`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import soundfile
from tqdm import tqdm

from assistant.files import whole
from assistant.sound.audio import SAMPLE_RATE
from train.command_line import command_line, told
from train.data.augmentation import add_noise, reverberate
from train.data.manifest import WITHOUT_SPEECH, write_manifest


def silence(count: int, rng: np.random.Generator) -> np.ndarray:
    """A quiet room: the microphone's own noise, just loud enough not to be refused as silent."""
    return add_noise(np.full(count, 1e-6, np.float32), rng.uniform(-60, -20), rng)


def noise(count: int, rng: np.random.Generator) -> np.ndarray:
    """White to brown noise, swelling slowly: a fan, rain, traffic."""
    swell = 1 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.05, 0.5) * np.arange(count) / SAMPLE_RATE)
    return (add_noise(np.full(count, 1e-3, np.float32), rng.uniform(-40, -20), rng) * swell).astype(np.float32)


def hum(count: int, rng: np.random.Generator) -> np.ndarray:
    """Mains and its harmonics, with a little noise."""
    mains, time = rng.choice([50, 60]), np.arange(count) / SAMPLE_RATE
    tones = sum(rng.uniform(0, 1) / order * np.sin(2 * np.pi * mains * order * time) for order in range(1, 8))
    return add_noise(np.asarray(tones, np.float32), rng.uniform(5, 25), rng)


def clicks(count: int, rng: np.random.Generator) -> np.ndarray:
    """A keyboard or a mouse: short clicks in a small room."""
    samples = np.zeros(count, np.float32)
    for start in rng.integers(0, count, max(1, int(count / SAMPLE_RATE * rng.uniform(0.5, 6)))):
        length = int(rng.uniform(0.001, 0.004) * SAMPLE_RATE)
        piece = samples[start : start + length]
        piece += rng.standard_normal(len(piece)).astype(np.float32) * rng.uniform(0.2, 1)
    return add_noise(reverberate(samples, rng), rng.uniform(10, 30), rng)


def coughs(count: int, rng: np.random.Generator) -> np.ndarray:
    """Bursts of noise through a throat: a sharp onset, a resonance, a fall within a third of a second."""
    samples = rng.standard_normal(count) * 0.003
    for start in rng.integers(0, max(1, count - SAMPLE_RATE // 3), rng.integers(1, 4)):
        time = np.arange(int(rng.uniform(0.12, 0.35) * SAMPLE_RATE)) / SAMPLE_RATE
        burst = rng.standard_normal(len(time)) * np.exp(-time / rng.uniform(0.03, 0.1))
        resonance = np.exp(-time[:200] * 600) * np.cos(2 * np.pi * rng.uniform(400, 1200) * time[:200])
        piece = samples[start : start + len(time)]
        piece += np.convolve(burst, resonance)[: len(piece)] * rng.uniform(0.1, 0.5)
    return reverberate(samples.astype(np.float32), rng)


KINDS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "silence": silence,
    "noise": noise,
    "hum": hum,
    "clicks": clicks,
    "coughs": coughs,
}


def sounds(count: int, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """`count` sounds of 1 to 8 s, every kind in turn: its name and float32 samples [n] at 16 kHz, at most 0.9 loud."""
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        kind = list(KINDS)[number % len(KINDS)]
        samples = KINDS[kind](int(rng.uniform(1, 8) * SAMPLE_RATE), rng)
        loudness = 10 ** (rng.uniform(-2.4, -1.9) if kind == "silence" else rng.uniform(-1.7, 0)) * 0.9
        yield kind, (samples * (loudness / np.abs(samples).max())).astype(np.float32)


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    entries: list[dict[str, Any]] = []
    for number, (kind, samples) in enumerate(
        tqdm(sounds(arguments.count, arguments.seed), total=arguments.count, unit=" clips")
    ):
        path = arguments.out / f"{number:05d}-{kind}.flac"
        with whole(path) as partial:
            soundfile.write(partial, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        duration = round(len(samples) / SAMPLE_RATE, 3)
        about = {"audio": str(path), "text": "", "speaker": kind, "duration": duration, "source": WITHOUT_SPEECH}
        entries.append(about)
    write_manifest(arguments.out / "manifest.jsonl", entries)


if __name__ == "__main__":
    main()
