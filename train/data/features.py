"""The feature cache: the frozen encoder's output, computed once, so that training never runs the encoder.

    python -m train.data.features runs/synthetic/manifest.jsonl --out runs/features/synthetic --copies 1

Shards of `float16 [frames, width]` with a JSON-lines index; a shard appears whole or not at all, and an interrupted
run continues. Copies after the first, and a share of the first, are augmented (`augmentation.py`).
"""

import multiprocessing
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from assistant.files import read_json_lines, whole, write_json_lines
from assistant.model.speech_encoder import encode, load_whisper
from assistant.sound.audio import SAMPLE_RATE, AudioError, load_utterance, prepare
from train.command_line import command_line, told
from train.data.augmentation import augment
from train.data.manifest import WITHOUT_SPEECH, read_manifest, refuse_held_out

SHARD = 250  # utterances
CLEAN_SHARE = 0.4  # of the first copy; later copies are all augmented


@dataclass(frozen=True)
class Sample:
    """One cached utterance: `features` float16 [T, width], its transcript and where it comes from."""

    features: torch.Tensor
    text: str
    source: str


class FeatureCache(Dataset[Sample]):
    """All utterances of one or more cache folders; features stay on disk, memory-mapped.

    Raises ValueError for a folder that is missing or empty: a recipe means all that it names.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._arrays: dict[str, np.ndarray] = {}
        for folder in folders:
            before = len(self.entries)
            for index in sorted(folder.glob("*.jsonl")):
                shard = str(index.with_suffix(".npy"))
                self.entries += [{**row, "shard": shard} for row in read_json_lines(index)]
            if len(self.entries) == before:
                raise ValueError(
                    f"{folder} {'holds no features' if folder.is_dir() else 'is not there'}, and nothing is trained on "
                    f"less than it was told. Make it: python -m train.data.features MANIFEST --out {folder} "
                    "(docs/training.md says from which manifest), or leave it out of the recipe."
                )

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
        features = encode(model, utterance.resampled()).half().numpy()
        blocks.append(features)
        lines.append({"start": start, "frames": len(features), "text": entry["text"], "source": entry["source"]})
        start += len(features)
    with whole(path) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(blocks) if blocks else np.zeros((0, model.dims.n_audio_state), np.float16))
    write_json_lines(path.with_suffix(".jsonl"), lines)  # the index is written last: it vouches for the array
    return len(lines), skipped


def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--copies", type=int, default=1, help="times each utterance is cached")
    parser.add_argument("--limit", type=int, help="use the first N utterances")
    parser.add_argument("--whisper", default="whisper-base")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    with told():
        refuse_held_out([arguments.manifest])
    usable = (
        entry for entry in read_manifest(arguments.manifest) if entry["text"] or entry["source"] == WITHOUT_SPEECH
    )
    entries = list(usable)[: arguments.limit]
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
