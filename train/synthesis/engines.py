"""The engines that speak: `hibari`, `flite`, `espeak` and `kokoro`, and the voices that are drawn from them.

A further engine is one more entry in `ENGINES`, and a case of `draw_voice`.
"""

import io
import random
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import soundfile
import soxr

from assistant.sound.audio import SAMPLE_RATE
from train.synthesis import kokoro

# Voices whose words Whisper base understands; the rest of espeak-ng's variants are too odd to learn from.
ESPEAK_LANGUAGES = {
    "english": ["en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-x-gbcwmd"],
    "chinese": ["cmn-latn-pinyin"],  # plain `cmn` reads characters as English spellings of their pinyin
}
ESPEAK_VARIANTS = ["", "+m1", "+m3", "+m4", "+m6", "+f2", "+f4", "+f5", "+klatt", "+klatt2", "+adam", "+Gene"]
FLITE_VOICES = ["awb", "rms", "slt", "kal16"]


def draw_voice(engine: str, rng: random.Random, language: str = "english") -> dict[str, Any]:
    """One voice of an engine: its name, tempo (1 is normal) and size (resampling: below 1 is a larger, deeper head).

    `espeak` and `kokoro` speak Chinese too.

    Raises
    ------
    ValueError
        There is no such engine, or it does not speak the `language`.
    """
    if language != "english" and engine in ("hibari", "flite"):
        raise ValueError(f"{engine} speaks English only; for {language} name espeak or kokoro.")
    match engine:
        case "hibari":
            return {"name": "heart", "tempo": rng.uniform(0.85, 1.2), "size": rng.uniform(0.72, 1.12)}
        case "flite":
            return {"name": rng.choice(FLITE_VOICES), "tempo": rng.uniform(0.85, 1.2), "size": rng.uniform(0.88, 1.12)}
        case "espeak":
            name = rng.choice(ESPEAK_LANGUAGES[language]) + rng.choice(ESPEAK_VARIANTS)
            return {"name": name, "tempo": rng.uniform(0.85, 1.15), "size": rng.uniform(0.92, 1.08)}
        case "kokoro":
            return {
                "name": kokoro.draw_name(rng, language),
                "tempo": rng.uniform(0.9, 1.3),
                "size": rng.uniform(0.92, 1.08),
            }
        case _:
            raise ValueError(f"Unknown engine {engine!r}. Known: {', '.join(ENGINES)}.")


@cache
def _hibari() -> Any:
    from hibari import Hibari

    return Hibari(threads=1)


def speak_hibari(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
    """hibari-tts, slowed by `size` first so that resampling leaves the tempo as drawn."""
    tts = _hibari()
    return tts(text, speed=voice["tempo"] / voice["size"], seed=seed), tts.sample_rate


def speak_flite(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
    """The flite program."""
    stretch = voice["size"] / voice["tempo"]
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = ["flite", "-voice", voice["name"], "--setf", f"duration_stretch={stretch:.3f}", "-t", text]
        subprocess.run([*command, "-o", file.name], check=True, capture_output=True)
        return soundfile.read(file.name, dtype="float32")


def speak_espeak(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
    """The espeak-ng program; pitch and word gap vary with the seed."""
    rng = random.Random(seed)
    speed = int(160 * voice["tempo"] / voice["size"])
    command = ["espeak-ng", "-v", voice["name"], "-s", str(speed), "-p", str(rng.randint(25, 75)), "--stdout"]
    done = subprocess.run([*command, "--", text], check=True, capture_output=True)
    return soundfile.read(io.BytesIO(done.stdout), dtype="float32")


def speak_kokoro(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
    """Kokoro-82M; it knows no seed."""
    return kokoro.speak(text, voice["name"], voice["tempo"] / voice["size"])


ENGINES: dict[str, Callable[[str, dict[str, Any], int], tuple[np.ndarray, int]]] = {
    "hibari": speak_hibari,
    "flite": speak_flite,
    "espeak": speak_espeak,
    "kokoro": speak_kokoro,
}
SHARES = {"english": {"hibari": 0.55, "flite": 0.3, "espeak": 0.15}, "chinese": {"espeak": 1.0}}
PROGRAMS = {"flite": "flite", "espeak": "espeak-ng"}


def available(engine: str) -> bool:
    """Whether the engine can speak on this machine."""
    return engine not in PROGRAMS or shutil.which(PROGRAMS[engine]) is not None


def speak(text: str, engine: str, voice: dict[str, Any], seed: int) -> np.ndarray:
    """Float32 samples [n] at 16 kHz of `text` in one voice, peak 0.9; silence when the engine said nothing."""
    samples, rate = ENGINES[engine](text, voice, seed)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    samples = soxr.resample(samples, rate * voice["size"], SAMPLE_RATE)
    peak = np.abs(samples).max(initial=0)
    return (samples * (0.9 / peak) if peak > 0 else samples).astype(np.float32)
