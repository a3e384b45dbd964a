"""How well the end-to-end lane reads: word error rates beside Whisper's own, on the same clips.

    python -m train.evaluation.reading ../shared/data/speech/dev/librispeech ../shared/data/speech/dev/asterisk

Corpus word error rate after Whisper's English normaliser, greedy on both sides, a row for each set; the last line is
one JSON object. Synthetic and real sets are rows of their own and never averaged together.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from assistant.files import CHECKPOINT, write_json_lines
from assistant.lanes.names import END_TO_END
from assistant.latency import StageClock
from assistant.model.checkpoint import read_config
from assistant.model.speech_encoder import load_whisper
from assistant.model.speech_lm import load_reader
from assistant.model.transcriber import Transcriber
from assistant.sound.audio import load_utterance
from train.command_line import Files, command_line, told
from train.data.manifest import read_manifest
from train.questions.bootstrap import ratio
from train.questions.measures import word_errors


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Corpus word error rate after normalisation; pairs whose reference normalises to nothing are left out."""
    pairs = zip(references, hypotheses, strict=True)
    return ratio(np.sum([word_errors(reference, hypothesis) for reference, hypothesis in pairs], axis=0))


def labels(manifests: list[Path]) -> list[str]:
    """A name for each set: its folder's, or its file's when that is not `manifest.jsonl`; with parents if need be."""
    parts = []
    for path in manifests:
        named = path.parent if path.name == "manifest.jsonl" else path
        parts.append((*named.parts[:-1], named.name.removesuffix(".gz").removesuffix(".jsonl")))
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        depth = next((n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), len(own))
        names.append("/".join(own[-depth:]))
    return names if len(set(names)) == len(names) else [str(path) for path in manifests]


@told()
def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__, "every clip's reference and readings, JSON lines", required=False)
    parser.add_argument(
        "sets", type=Path, nargs="+", action=Files, help="manifests, or folders that hold a manifest.jsonl"
    )
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--limit", type=int, help="use the first N clips of each set")
    parser.add_argument("--skip-whisper", action="store_true", help="leave out Whisper's own word error rate")
    arguments = parser.parse_args()

    manifests = {(path / "manifest.jsonl" if path.is_dir() else path).resolve(): path for path in arguments.sets}
    entries_of = {}
    for name, path in zip(labels(list(manifests)), manifests.values(), strict=True):
        entries_of[name] = [entry for entry in read_manifest(path) if entry["text"]][: arguments.limit]
        if not entries_of[name]:
            raise ValueError(f"No entry of {path} has a text that a reading could be compared with.")
    whisper = load_whisper(read_config(arguments.checkpoint).whisper)
    read, transcriber = load_reader(arguments.checkpoint, whisper), Transcriber(whisper)

    def transcribe(audio: str) -> str:
        return transcriber.transcribe(load_utterance(audio).resampled(), StageClock(torch.device("cpu")))

    systems: dict[str, Callable[[str], str]] = {END_TO_END: lambda audio: read(load_utterance(audio).resampled())}
    if not arguments.skip_whisper:
        systems["whisper"] = transcribe
    table, clips = {}, []
    longest = max(27, *map(len, entries_of)) + 1
    print(f"{'set':<{longest}}{'clips':>6}{'minutes':>9}" + "".join(f"{name:>12}" for name in systems))
    for name, entries in entries_of.items():
        texts: dict[str, list[str]] = {system: [] for system in systems}
        for entry in tqdm(entries, desc=name, leave=False):
            for system, read_by in systems.items():
                texts[system].append(read_by(entry["audio"]))
            clips.append(
                {
                    "set": name,
                    "audio": entry["audio"],
                    "text": entry["text"],
                    **{system: found[-1] for system, found in texts.items()},
                }
            )
        references = [entry["text"] for entry in entries]
        rates = {system: round(word_error_rate(references, found), 4) for system, found in texts.items()}
        minutes = sum(entry["duration"] or load_utterance(entry["audio"]).duration for entry in entries) / 60
        table[name] = {"clips": len(entries), "minutes": round(minutes, 1), **rates}
        print(f"{name:<{longest}}{len(entries):>6}{minutes:>9.1f}" + "".join(f"{r:>12.3f}" for r in rates.values()))
    if arguments.out:
        write_json_lines(arguments.out, clips)
    print(json.dumps({"checkpoint": arguments.checkpoint.name, "word_error_rate": table}))


if __name__ == "__main__":
    main()
