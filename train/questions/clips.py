"""The clips that the evaluation asks about: real recordings as they are, held-out text spoken once, and no speech.

Everything is decided by the text and the name of its set, so the same data and engines always give the same clips, and
a smaller limit gives the first of them. Text is taken only from files that training refuses, or, where a file is
trained on, from the hundredth that `train.stages.ctc.held_out` keeps.
"""

import random
import re
import subprocess
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
from tqdm import tqdm

from assistant.files import ASSETS, SAMPLES, read_json_lines, whole
from assistant.limits import MIN_DURATION
from assistant.sound.audio import SAMPLE_RATE, load_utterance
from train.data.augmentation import add_noise, reverberate
from train.data.manifest import held_out, read_manifest, write_manifest
from train.data.spoken_form import CHINESE, spell_numbers, spoken_form
from train.questions.sounds import SOUNDS
from train.synthesis.engines import available, draw_voice, speak

REAL = ("librispeech", "asterisk", "ljspeech", "cmu_arctic", "pocketsphinx", "jfk", "audio_cmn_words")
ENGINES = {"hibari": 0.5, "flite": 0.3, "espeak": 0.2}  # shares of those that are installed
CHINESE_VOICE = "cmn-latn-pinyin"  # espeak-ng 1.51 reads characters right with this one only
CHOICES = 5  # intents to choose from
CONDITIONS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "noise, 20 dB": lambda samples, rng: add_noise(samples, 20, rng),
    "noise, 10 dB": lambda samples, rng: add_noise(samples, 10, rng),
    "noise, 5 dB": lambda samples, rng: add_noise(samples, 5, rng),
    "reverberation": reverberate,
}
DEGRADED = 40  # clips that every condition is applied to


@dataclass(frozen=True)
class Clip:
    """One recording: what was said in it (nothing: no speech), whether by people, and what is known about it."""

    set: str
    audio: Path
    text: str
    voice: Literal["real", "synthetic"]
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Unique among the clips of an evaluation."""
        return f"{self.set}/{self.audio.parent.name}/{self.audio.stem}"


Rows = Iterator[tuple[str, dict[str, Any]]]  # text and facts


def evaluation_clips(
    data: Path, out: Path, wanted: Collection[str], limit: int | None
) -> tuple[dict[str, list[Clip]], list[str]]:
    """The wanted sets by name, at most `limit` clips of each, and a sentence for everything that had to be left out.

    Parameters
    ----------
    data: the folder with `text` and `speech/dev`; what it lacks is left out.
    out: where spoken and changed clips are kept.
    """
    missing: list[str] = []
    clips: dict[str, list[Clip]] = {}
    for name in wanted:
        try:
            if name in SPOKEN:
                clips[name] = _spoken(name, data / "text", out / name, limit)
                if fewer := min(SPOKEN[name][1], limit or SPOKEN[name][1]) - len(clips[name]):
                    missing.append(
                        f"{name}: {fewer} fewer clips than usual; there are no more, or no voice spoke them."
                    )
            elif name in REAL:
                clips[name] = _shuffled(name, _recorded(name, data / "speech" / "dev" / name), limit)
            elif name == "samples":
                clips[name] = _samples(data / "speech" / "dev")[:limit]
            elif name == "no speech":
                clips[name] = list(_no_speech(out / "no_speech"))[:limit]
            else:
                source = _recorded("librispeech", data / "speech" / "dev" / "librispeech")
                clips[name] = _degraded(name, _shuffled("librispeech", source, limit)[:DEGRADED], out)
        except FileNotFoundError as error:
            missing.append(f"{name}: {error.filename} is not there.")
    return {name: clips[name] for name in wanted if clips.get(name)}, missing


# People ---------------------------------------------------------------------------------------------------------------


def _recorded(name: str, folder: Path) -> list[Clip]:
    entries = read_manifest(folder / "manifest.jsonl")
    return [Clip(name, Path(entry["audio"]), entry["text"], "real") for entry in entries if entry["text"]]


def _samples(dev: Path) -> list[Clip]:
    """The bundled clips, those left out that are there in a set of real speech already."""
    known = set()
    for manifest in dev.glob("*/manifest.jsonl"):
        known |= {spoken_form(entry["text"]) for entry in read_manifest(manifest) if entry["text"]}
    entries = read_manifest(SAMPLES / "manifest.jsonl")
    return [
        Clip("samples", Path(entry["audio"]), entry["text"], entry["voice"])
        for entry in entries
        if spoken_form(entry["text"]) not in known
    ]


def _shuffled(name: str, items: list[Any], limit: int | None) -> list[Any]:
    """Manifests are sorted by speaker and files by label: the first few should be of all kinds."""
    return random.Random(name).sample(items, len(items))[:limit]


# Held-out text, spoken ------------------------------------------------------------------------------------------------


def _intents(path: Path) -> Rows:
    """Requests with their intent and four others, in words and in an order of their own."""
    rows = [row for row in read_json_lines(path) if row["intent"] != "oos"]
    every = sorted({row["intent"] for row in rows})
    for row in rows:
        rng = random.Random(row["text"])
        others = rng.sample([intent for intent in every if intent != row["intent"]], CHOICES - 1)
        choices = [_in_words(intent) for intent in (row["intent"], *others)]
        yield row["text"], {"intent": choices[0], "choices": rng.sample(choices, CHOICES)}


def _in_words(intent: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", intent).lower()


def _tatoeba(path: Path) -> Rows:
    references = defaultdict(list)
    for row in read_json_lines(path):
        if held_out(row["en"]):
            references[row["en"]].append(row["zh"])
    for text, translations in references.items():
        yield text, {"references": translations}


def _natural_questions(path: Path) -> Rows:
    return (
        (row["question"], {"answers": row["answers"]}) for row in read_json_lines(path) if held_out(row["question"])
    )


def _yes_no(path: Path) -> Rows:
    return ((row["question"], {"answer": row["answer"]}) for row in read_json_lines(path))


def _bundled(path: Path) -> Rows:
    return ((row.pop("text"), row) for row in read_json_lines(ASSETS / "evaluation" / path.name))


# What each set is made from and how many clips it has at most.
SPOKEN: dict[str, tuple[Callable[[Path], Rows], int, str]] = {
    "snips": (_intents, 150, "snips_val.jsonl"),
    "clinc150": (_intents, 150, "clinc150_test.jsonl"),
    "tatoeba": (_tatoeba, 172, "tatoeba_en_zh.jsonl.gz"),
    "natural questions": (_natural_questions, 21, "nq_open.jsonl"),
    "boolq": (_yes_no, 80, "boolq_dev.jsonl"),
    "sentiment": (_bundled, 60, "sentiment.jsonl"),
    "code-switched": (_bundled, 20, "code_switched.jsonl"),
}


def _spoken(name: str, text: Path, folder: Path, limit: int | None) -> list[Clip]:
    read, size, file = SPOKEN[name]
    rows = _shuffled(name, list(read(text / file)), size)[:limit]
    folder.mkdir(parents=True, exist_ok=True)
    clips, entries = [], []
    for words, facts in tqdm(rows, desc=f"Speaking: {name}", unit=" clips", leave=False):
        rng = random.Random(f"{name}\n{words}")
        audio = folder / f"{zlib.crc32(words.encode()):08x}.flac"
        try:
            spoken, speaker = _speak(words, audio, rng)
        except (subprocess.CalledProcessError, RuntimeError, ValueError):
            continue  # counted as missing by the caller
        clips.append(Clip(name, audio, spoken, "synthetic", facts))
        entries.append(
            {
                "audio": str(audio),
                "text": spoken,
                "speaker": speaker,
                "duration": round(soundfile.info(audio).duration, 3),
                "source": name,
                **facts,
            }
        )
    write_manifest(folder / "manifest.jsonl", entries)  # for readers, and for `train.evaluation.reading`
    return clips


def _speak(text: str, audio: Path, rng: random.Random) -> tuple[str, str]:
    """Speak a text once; returns the words that are said and by whom. English and Chinese parts share a voice.

    Raises
    ------
    ValueError
        No engine that speaks the language is installed, or nothing came out.
    """
    chinese = bool(CHINESE.search(text))
    engines = {name: share for name, share in ENGINES.items() if available(name) and (name == "espeak" or not chinese)}
    if not engines:
        raise ValueError("No engine is installed.")
    engine = rng.choices(list(engines), list(engines.values()))[0]
    voice, seed = draw_voice(engine, rng), rng.randrange(2**31)
    parts = [text if chinese else spell_numbers(text)]
    if chinese:
        voice["name"] = "en-us" + rng.choice(["", "+f2", "+m3"])  # those whose Chinese can be understood
        parts = [part for part in re.split(r"([A-Za-z][A-Za-z' ]*)", text) if re.search(r"\w", part)]
    if not audio.exists():
        samples = np.concatenate([speak(part, engine, _voice_for(part, voice), seed) for part in parts])
        if len(samples) < MIN_DURATION * SAMPLE_RATE:
            raise ValueError("Too short.")
        _write(audio, samples)
    return "".join(parts), f"{engine}-{voice['name']}-{voice['size']:.2f}"


def _voice_for(part: str, voice: dict[str, Any]) -> dict[str, Any]:
    return {**voice, "name": voice["name"].replace("en-us", CHINESE_VOICE)} if CHINESE.search(part) else voice


def _write(path: Path, samples: np.ndarray) -> None:
    with whole(path) as partial:
        soundfile.write(partial, samples / max(1, np.abs(samples).max()), SAMPLE_RATE, format="FLAC", subtype="PCM_16")


# No speech, bad conditions --------------------------------------------------------------------------------------------


def _no_speech(folder: Path) -> Iterator[Clip]:
    """Five of each sound, two to four seconds long, the kinds taking turns."""
    for number in range(5):
        for kind, make in SOUNDS.items():
            audio = folder / f"{kind.replace(' ', '_')}_{number}.flac"
            rng = np.random.default_rng([number, zlib.crc32(kind.encode())])
            if not audio.exists():
                _write(audio, make(int(rng.uniform(2, 4) * SAMPLE_RATE), rng))
            yield Clip("no speech", audio, "", "synthetic", {"sound": kind})


def _degraded(condition: str, source: list[Clip], out: Path) -> list[Clip]:
    clips = []
    for clip in source:
        audio = clip.audio
        if condition in CONDITIONS:
            audio = out / re.sub(r"\W+", "_", condition) / f"{clip.audio.stem}.flac"
            if not audio.exists():
                rng = np.random.default_rng(zlib.crc32(f"{condition}\n{clip.name}".encode()))
                _write(audio, CONDITIONS[condition](load_utterance(clip.audio).resampled(), rng))
        clips.append(Clip(condition, audio, clip.text, clip.voice, {"of": clip.name}))
    return clips
