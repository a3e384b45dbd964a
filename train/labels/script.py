"""Which line of a script each recording says: transcripts for speech that comes with all that is said in it.

    python -m train.labels.script runs/adventure_game/{manifest,script}.jsonl --out runs/game_script

The recording is read by a checkpoint, and the line that is most like the reading in letters is taken; where none is
much like it, the recording is dropped and counted, and so are lines of one or two words, which too many others are
like, and recordings that cannot be read. A reading with every third word wrong is good enough for that, so it is faster
than transcripts by Whisper (`train.labels.pseudo_label`), and the words are the script's.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rapidfuzz import fuzz, process
from tqdm import tqdm

from assistant.files import CHECKPOINT
from assistant.model.checkpoint import read_config
from assistant.model.speech_encoder import load_whisper
from assistant.model.speech_lm import load_reader
from assistant.sound.audio import AudioError, load_utterance
from train.command_line import command_line, told
from train.data.manifest import read_manifest, refuse_held_out, write_manifest
from train.data.sentences import read_sentences
from train.data.spoken_form import spoken_form
from train.workers import shared_out

LIKE = 75  # of 100, the share of letters in common (rapidfuzz's ratio)
SHORTEST = 3  # words of a line; of 16 shorter ones 11 were wrong (docs/experiments.md)

_worker: dict[str, Callable[[np.ndarray], str]] = {}


def closest_line(reading: str, lines: list[str]) -> int | None:
    """The number of the line most like a reading, both as `spoken_form`; None when none is, or when it is too short."""
    found = process.extractOne(reading, lines, scorer=fuzz.ratio, score_cutoff=LIKE)
    return None if found is None or len(found[0].split()) < SHORTEST else found[2]


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("script", type=Path, help="JSON lines with what is said in the recordings, in any order")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    refuse_held_out([arguments.manifest])
    entries = list(read_manifest(arguments.manifest))
    lines = read_sentences([arguments.script], shortest=1, longest=100)
    spoken = [spoken_form(line) for line in lines]
    _reader(arguments.checkpoint)  # what is wrong with it is said before several processes say it
    audio = [entry["audio"] for entry in entries]
    readings = shared_out(_read, audio, arguments.processes, 16, _start_worker, (arguments.checkpoint,))
    kept = []
    for entry, reading in zip(tqdm(entries, desc="Reading", unit=" clips"), readings, strict=True):
        if (line := closest_line(spoken_form(reading), spoken)) is not None:
            kept.append({**entry, "text": lines[line]})
    write_manifest(arguments.out / "manifest.jsonl", kept)
    print(f"{len(kept):,} recordings say a line of the script; of {len(entries) - len(kept):,} it is not certain.")


def _reader(checkpoint: Path) -> Callable[[np.ndarray], str]:
    return load_reader(checkpoint, load_whisper(read_config(checkpoint).whisper))


def _start_worker(checkpoint: Path) -> None:
    torch.set_num_threads(1)
    _worker["read"] = _reader(checkpoint)


def _read(audio: str) -> str:
    try:
        return _worker["read"](load_utterance(audio).resampled())
    except AudioError:
        return ""


if __name__ == "__main__":
    main()
