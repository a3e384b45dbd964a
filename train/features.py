"""The feature cache: the frozen encoder's output, computed once, so that training never runs the encoder.

    python -m train.features runs/synthetic/manifest.jsonl --out runs/features/synthetic --copies 1

Shards of `float16 [frames, width]` with a JSON-lines index; a shard appears whole or not at all, and an interrupted
run continues. Copies after the first, and a share of the first, are augmented (`augmentation.py`).
"""

import argparse
import json
import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from assistant.audio import SAMPLE_RATE, AudioError, load_utterance, prepare
from assistant.speech_encoder import encode, load_whisper, speech_mels
from train.augmentation import augment
from train.manifest import read_manifest, refuse_held_out
from train.no_speech import NO_SPEECH

SHARD = 250  # utterances
CLEAN_SHARE = 0.4  # of the first copy; later copies are all augmented


@dataclass(frozen=True)
class Sample:
    """One cached utterance: `features` float16 [T, width], its transcript and where it comes from."""

    features: torch.Tensor
    text: str
    source: str


class FeatureCache(Dataset[Sample]):
    """All utterances of one or more cache folders; features stay on disk, memory-mapped."""

    def __init__(self, folders: list[Path]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._arrays: dict[str, np.ndarray] = {}
        for index in (index for folder in folders for index in sorted(folder.glob("*.jsonl"))):
            with index.open(encoding="utf-8") as lines:
                self.entries += [{**json.loads(line), "shard": str(index.with_suffix(".npy"))} for line in lines]
        if not self.entries:
            raise ValueError(f"No features in {', '.join(map(str, folders))}. Make them with python -m train.features.")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Sample:
        entry = self.entries[index]
        shard = entry["shard"]
        if shard not in self._arrays:
            self._arrays[shard] = np.load(shard, mmap_mode="r", allow_pickle=False)
        rows = self._arrays[shard][entry["start"] : entry["start"] + entry["frames"]]
        return Sample(torch.from_numpy(rows.copy()), entry["text"], entry["source"])


_worker: dict[str, Any] = {}


def _start_worker(whisper: str) -> None:
    torch.set_num_threads(1)
    _worker["model"] = load_whisper(whisper)


def _encode_shard(job: dict[str, Any]) -> tuple[int, list[str]]:
    """Encode one shard; returns how many utterances it holds and why others were skipped."""
    path: Path = job["path"]
    if path.with_suffix(".jsonl").exists():
        return sum(1 for _ in path.with_suffix(".jsonl").open(encoding="utf-8")), []
    model = _worker["model"]
    blocks, lines, skipped, start = [], [], [], 0
    for number, entry in job["entries"]:
        rng = np.random.default_rng([job["seed"], job["copy"], number])
        try:
            utterance = load_utterance(entry["audio"])
            if job["copy"] > 0 or rng.random() > CLEAN_SHARE:
                utterance = prepare(augment(utterance.resampled(), rng), SAMPLE_RATE, utterance.name)
        except AudioError as error:
            skipped.append(str(error))
            continue
        features = encode(model.encoder, speech_mels(utterance.resampled(), model.dims.n_mels)).half().numpy()
        blocks.append(features)
        lines.append({"start": start, "frames": len(features), "text": entry["text"], "source": entry["source"]})
        start += len(features)
    partial = path.with_suffix(".partial.npy")
    np.save(partial, np.concatenate(blocks) if blocks else np.zeros((0, model.dims.n_audio_state), np.float16))
    os.replace(partial, path)
    partial = path.with_suffix(".partial")
    partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    os.replace(partial, path.with_suffix(".jsonl"))  # the index is written last: it vouches for the array
    return len(lines), skipped


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--copies", type=int, default=1, help="times each utterance is cached")
    parser.add_argument("--limit", type=int, help="use the first N utterances")
    parser.add_argument("--whisper", default="whisper-base")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    refuse_held_out([arguments.manifest])
    usable = (entry for entry in read_manifest(arguments.manifest) if entry["text"] or entry["source"] == NO_SPEECH)
    entries = list(usable)[: arguments.limit]
    arguments.out.mkdir(parents=True, exist_ok=True)
    jobs = [
        {
            "path": arguments.out / f"{copy}-{start // SHARD:04d}.npy",
            "entries": list(enumerate(entries))[start : start + SHARD],
            "copy": copy,
            "seed": arguments.seed,
        }
        for copy in range(arguments.copies)
        for start in range(0, len(entries), SHARD)
    ]
    load_whisper(arguments.whisper)  # converts once, before several processes would
    total, skipped = 0, []
    context = multiprocessing.get_context("spawn")
    with (
        context.Pool(arguments.processes, _start_worker, (arguments.whisper,)) as pool,
        tqdm(total=len(entries) * arguments.copies, desc="Encoding", unit=" clips") as bar,
    ):
        for count, reasons in pool.imap_unordered(_encode_shard, jobs):
            total += count
            skipped += reasons
            bar.update(count + len(reasons))
    print(f"{total:,} utterances cached, {len(skipped)} skipped.")
    for reason in skipped[:20]:
        print(f"  {reason}")


if __name__ == "__main__":
    main()
