"""Text to speech in many voices: the training audio that a text collection can be turned into.

    python -m train.synthesize ../shared/data/text --out runs/synthetic --count 30000

Sentences are drawn and voices assigned from the seed alone, so the same command writes the same corpus; clips that
are already there are kept, so an interrupted run goes on where it stopped. Engines: `hibari` (neural, in a wheel),
`flite` and `espeak` (their programs, when installed), `kokoro` (45 voices and their blends, slow; kokoro.py). A
further engine is one more entry in `ENGINES`.
"""

import argparse
import gzip
import io
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from tqdm import tqdm

from assistant.audio import SAMPLE_RATE
from train import kokoro
from train.manifest import HELD_OUT, refuse_held_out, spell_numbers, write_manifest

# Voices whose words Whisper base understands; the rest of espeak-ng's variants are too odd to learn from.
ESPEAK_LANGUAGES = {
    "english": ["en-us", "en-us", "en-gb", "en-gb-x-rp", "en-gb-x-gbcwmd"],
    "chinese": ["cmn-latn-pinyin"],  # plain `cmn` reads characters as English spellings of their pinyin
}
ESPEAK_VARIANTS = ["", "+m1", "+m3", "+m4", "+m6", "+f2", "+f4", "+f5", "+klatt", "+klatt2", "+adam", "+Gene"]
FLITE_VOICES = ["awb", "rms", "slt", "kal16"]
SENTENCES = {  # by language: where they stand in a line of a text set, what they are made of, what a word is
    "english": (("text", "question", "en"), r"[\x20-\x7e]+", r"\S+"),
    "chinese": (("text", "zh"), r"[\u3400-\u9fff0-9 ，。？！、；：,.?!;:]+", r"[\u3400-\u9fff]|[0-9]+"),
}


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


def read_sentences(paths: list[Path], shortest: int = 3, longest: int = 24, language: str = "english") -> list[str]:
    """Distinct sentences of `shortest` to `longest` words in JSON-lines files (gzipped or not) or folders.

    A Chinese character is a word.
    """
    keys, letters, word = SENTENCES[language]
    files = [file for path in paths for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    sentences: dict[str, str] = {}
    for file in files:
        if not re.search(r"\.jsonl(\.gz)?$", file.name) or HELD_OUT.search(file.name):
            continue
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line)
                text = next((row[key] for key in keys if row.get(key)), "")
                if re.fullmatch(letters, text) and shortest <= len(re.findall(word, text)) <= longest:
                    sentences.setdefault(re.sub(r"\W", "", text.lower()), text)
    return list(sentences.values())


def write_sentences(path: Path, sentences: Iterable[str]) -> None:
    """Write a text set that `read_sentences` reads, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps({"text": sentence}) + "\n" for sentence in sentences), "utf-8")
    os.replace(partial, path)


def speak_to_file(job: dict[str, Any]) -> dict[str, Any] | None:
    """Do one job of `plan`, unless its file is there already; its manifest entry, or None when it cannot be spoken."""
    path = Path(job["audio"])
    if path.exists():
        samples = soundfile.info(path).frames
    else:
        try:
            audio = speak(job["spoken"], job["engine"], job["voice"], job["seed"])
        except (subprocess.CalledProcessError, RuntimeError, ValueError):
            return None
        samples = len(audio)
        if samples < 0.3 * SAMPLE_RATE:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        soundfile.write(partial, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        os.replace(partial, path)
    return {
        "audio": str(path),
        "text": job["spoken"],
        "speaker": f"{job['engine']}-{job['voice']['name']}-{job['voice']['size']:.2f}",
        "duration": round(samples / SAMPLE_RATE, 3),
        "source": f"synthetic-{job['engine']}",
    }


def plan(
    sentences: list[str], out: Path, count: int, engines: dict[str, float], seed: int, language: str = "english"
) -> list[dict[str, Any]]:
    """`count` jobs, each a sentence with a voice, decided by the seed alone."""
    rng = random.Random(seed)
    chosen = rng.sample(sentences, min(count, len(sentences)))
    jobs = []
    for index, text in enumerate(chosen):
        engine = rng.choices(list(engines), list(engines.values()))[0]
        jobs.append(
            {
                "audio": str(out / f"{index // 1000:03d}" / f"{index:06d}.flac"),
                "spoken": spell_numbers(text),
                "engine": engine,
                "voice": draw_voice(engine, rng, language),
                "seed": rng.randrange(2**31),
            }
        )
    return jobs


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, nargs="+", help="text sets: JSON lines files or folders of them")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=30_000, help="sentences to speak")
    parser.add_argument("--language", default="english", choices=list(SENTENCES))
    parser.add_argument("--engines", help="engine=share, comma separated, as in hibari=0.55,flite=0.3,espeak=0.15")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    refuse_held_out(arguments.text)
    language, shares = arguments.language, SHARES[arguments.language]
    if arguments.engines:
        shares = {name: float(share) for name, share in (item.split("=") for item in arguments.engines.split(","))}
    if missing := [name for name in shares if not available(name)]:
        raise SystemExit(f"Not installed: {', '.join(missing)}. Install them, or leave them out of --engines.")
    if "kokoro" in shares:
        try:
            kokoro.prepare()  # here once, before several processes would
        except OSError as error:
            raise SystemExit(f"{error} Leave kokoro out of --engines, or try again.") from error
    sentences = read_sentences(arguments.text, language=language)
    try:
        jobs = plan(sentences, arguments.out, arguments.count, shares, arguments.seed, language)
    except ValueError as error:
        raise SystemExit(str(error)) from error
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        spoken = pool.imap(speak_to_file, jobs, chunksize=16)
        results = list(tqdm(spoken, total=len(jobs), desc="Speaking", unit=" clips"))
    entries = [entry for entry in results if entry]
    write_manifest(arguments.out / "manifest.jsonl", entries)
    hours = sum(entry["duration"] for entry in entries) / 3600
    print(f"{len(entries):,} clips, {hours:.1f} h; {len(results) - len(entries)} sentences could not be spoken.")


if __name__ == "__main__":
    main()
