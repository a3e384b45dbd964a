"""How well the end-to-end lane reads: word error rates beside Whisper's own, on the same clips.

    python -m train.reading ../shared/data/speech/dev/librispeech ../shared/data/speech/dev/asterisk

Corpus word error rate after Whisper's English normaliser, greedy on both sides, a row for each set; the last line is
one JSON object. Synthetic and real sets are rows of their own and never averaged together.
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm
from transformers import AutoTokenizer
from whisper.model import Whisper

from assistant.audio import load_utterance
from assistant.checkpoint import load_connector, read_config
from assistant.connector import QFormerConnector, pad_features
from assistant.lanes import CHECKPOINT
from assistant.latency import StageClock
from assistant.speech_encoder import encode, load_whisper, speech_mels
from assistant.transcriber import Transcriber
from assistant.weights import locate
from train.evaluation.bootstrap import ratio
from train.evaluation.measures import word_errors
from train.manifest import read_manifest


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Corpus word error rate after normalisation; pairs whose reference normalises to nothing are left out."""
    pairs = zip(references, hypotheses, strict=True)
    return ratio(np.sum([word_errors(reference, hypothesis) for reference, hypothesis in pairs], axis=0))


def greedy_reader(folder: Path, whisper: Whisper) -> Callable[[str], str]:
    """What the connector of a checkpoint reads in an audio file; `whisper` is the checkpoint's.

    Raises SystemExit where there is no vocabulary projection, AudioError as `load_utterance` does.
    """
    config = read_config(folder)
    tokenizer = AutoTokenizer.from_pretrained(locate(config.llm))
    connector = load_connector(folder, config)
    if not isinstance(connector, QFormerConnector) or config.connector.projection != "vocabulary":
        raise SystemExit(f"{folder} has no vocabulary projection: it reads no words.")

    @torch.inference_mode()
    def read(audio: str) -> str:
        features = encode(whisper.encoder, speech_mels(load_utterance(audio).resampled(), whisper.dims.n_mels))
        return str(tokenizer.decode(connector.tokens(*pad_features([features]))[0])).strip()

    return read


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+", help="manifests, or folders that hold a manifest.jsonl")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--limit", type=int, help="use the first N clips of each set")
    parser.add_argument("--skip-whisper", action="store_true", help="leave out Whisper's own word error rate")
    parser.add_argument("--out", type=Path, help="write every clip's reference and readings here, JSON lines")
    arguments = parser.parse_args()

    whisper = load_whisper(read_config(arguments.checkpoint).whisper)
    read, transcriber = greedy_reader(arguments.checkpoint, whisper), Transcriber(whisper)

    def transcribe(audio: str) -> str:
        return transcriber.transcribe(load_utterance(audio).resampled(), StageClock(torch.device("cpu")))

    systems: dict[str, Callable[[str], str]] = {"end_to_end": read}
    if not arguments.skip_whisper:
        systems["whisper"] = transcribe
    table, clips = {}, []
    print(f"{'set':<28}{'clips':>6}{'minutes':>9}" + "".join(f"{name:>12}" for name in systems))
    for path in arguments.sets:
        manifest = path / "manifest.jsonl" if path.is_dir() else path
        entries = [entry for entry in read_manifest(manifest) if entry["text"]][: arguments.limit]
        texts: dict[str, list[str]] = {name: [] for name in systems}
        for entry in tqdm(entries, desc=manifest.parent.name, leave=False):
            for name, system in systems.items():
                texts[name].append(system(entry["audio"]))
            clips.append({"audio": entry["audio"], "text": entry["text"], **{n: t[-1] for n, t in texts.items()}})
        references = [entry["text"] for entry in entries]
        rates = {name: round(word_error_rate(references, read), 4) for name, read in texts.items()}
        minutes = sum(entry["duration"] for entry in entries) / 60
        table[manifest.parent.name] = {"clips": len(entries), "minutes": round(minutes, 1), **rates}
        print(
            f"{manifest.parent.name:<28}{len(entries):>6}{minutes:>9.1f}"
            + "".join(f"{r:>12.3f}" for r in rates.values())
        )
    if arguments.out:
        arguments.out.write_text("".join(json.dumps(clip, ensure_ascii=False) + "\n" for clip in clips), "utf-8")
    print(json.dumps({"checkpoint": arguments.checkpoint.name, "word_error_rate": table}))


if __name__ == "__main__":
    main()
