"""The feature cache: the frozen encoder's output, computed once, so that training never runs the encoder.

    python -m train.data.features runs/synthetic/manifest.jsonl --out runs/features/synthetic --copies 1

Shards of `float16 [frames, width]` with a JSON-lines index; a shard appears whole or not at all, and an interrupted
run continues. Copies after the first, and a share of the first, are augmented (`augmentation.py`). Given again with
another manifest, seed or Whisper, the command makes anew what that changes, and says so (`provenance.py`).
"""

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from itertools import chain, count, groupby
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
from train.data.provenance import check_array, clear_out, identity, wanted_rows
from train.workers import shared_out

SHARD = 250  # utterances
CLEAN_SHARE = 0.4  # of the first copy; later copies are all augmented
INDEX = {"text": str, "source": str | None, "start": int | None, "frames": int | None}  # what a line holds


@dataclass(frozen=True)
class Sample:
    """One cached utterance: `features` float16 [T, width], its transcript and where it comes from."""

    features: torch.Tensor
    text: str
    source: str


class FeatureCache(Dataset[Sample]):
    """All utterances of one or more cache folders; features stay on disk, memory-mapped.

    Raises ValueError for a folder that is missing, empty, damaged or of another Whisper than the others: a recipe means
    all that it names.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.entries: list[dict[str, Any]] = []
        self._arrays: dict[str, np.ndarray] = {}
        widths: dict[int, Path] = {}
        for folder in folders:
            before = len(self.entries)
            for index in sorted(folder.glob("*.jsonl")):
                shard = index.with_suffix(".npy")
                rows = [row for row in read_json_lines(index, INDEX) if "skipped" not in row]
                self.entries += [{**row, "shard": str(shard)} for row in rows]
                if rows:
                    widths.setdefault(_width(shard, rows), shard)
            if len(self.entries) == before:
                raise ValueError(
                    f"{folder} {'holds no features' if folder.is_dir() else 'is not there'}, and nothing is trained on "
                    f"less than it was told. Make it: python -m train.data.features MANIFEST --out {folder} "
                    "(docs/training.md says from which manifest), or leave it out of the recipe."
                )
        if len(widths) > 1:
            raise ValueError(
                "The caches are of different Whispers: "
                + ", ".join(f"{shard} is {width} wide" for width, shard in widths.items())
                + ". Name caches of one."
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

    def named(self, indices: list[int]) -> list[str]:
        """Utterances in words for a log, first those that nothing can be learnt from: their features are not finite."""
        whole, broken = [], []
        for index in indices:
            entry = self.entries[index]
            end = entry["start"] + entry["frames"]
            where = f"{entry['shard']}, rows {entry['start']} to {end}"
            name = f'"{entry["text"]}" ({", ".join([*filter(None, [entry.get("audio")]), where])})'
            if self[index].features.isfinite().all():
                whole.append(name)
            else:
                broken.append(f"{name}, whose features are NaN or infinite: delete that file, and make it again")
        return broken + whole


def _width(shard: Path, rows: list[dict[str, Any]]) -> int:
    try:
        return int(check_array(shard, rows).shape[1])
    except ValueError as error:
        raise ValueError(
            f"{error}. Give train.data.features its command again: it makes anew what is damaged."
        ) from error


_worker: dict[str, Any] = {}


def _start_worker(whisper: str) -> None:
    torch.set_num_threads(1)
    _worker["model"] = load_whisper(whisper)


def _encode_shard(job: dict[str, Any]) -> list[dict[str, Any]]:
    """Encode the rows of one shard; returns the lines of its index, some with the reason why they were `skipped`."""
    path: Path = job["path"]
    model = _worker["model"]
    blocks, lines, start = [], [], 0
    for row in job["rows"]:
        # Drawn by what the row is made from, so that it stays the same wherever in a manifest it stands.
        rng = np.random.default_rng([row["seed"], row["copy"], row["again"], *row["clip"].encode()])
        try:
            utterance = load_utterance(row["audio"])
            if row["copy"] > 0 or rng.random() > CLEAN_SHARE:
                utterance = prepare(augment(utterance.resampled(), rng), SAMPLE_RATE, utterance.name)
            features = encode(model, utterance.resampled()).half().numpy()
            if not np.isfinite(features).all():
                raise AudioError(f"{utterance.name}: the encoder's output is not finite.")
        except AudioError as error:
            lines.append({**row, "skipped": str(error)})
            continue
        blocks.append(features)
        lines.append({"start": start, "frames": len(features), **row})
        start += len(features)
    with whole(path) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(blocks) if blocks else np.zeros((0, model.dims.n_audio_state), np.float16))
    write_json_lines(path.with_suffix(".jsonl"), lines)  # the index is written last: it vouches for the array
    return lines


def _jobs(out: Path, wanted: list[dict[str, Any]], kept: Container[tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    """What is missing, shard by shard: under the names that a cache made at once has, as far as they are free."""
    for copy, rows in groupby(wanted, key=lambda row: row["copy"]):
        everything = list(rows)
        for start in range(0, len(everything), SHARD):
            missing = [row for row in everything[start : start + SHARD] if identity(row) not in kept]
            name = f"{copy}-{start // SHARD:04d}"
            names = chain([name], (f"{name}-{number}" for number in count(1)))
            if missing:
                free = next(name for name in names if not (out / f"{name}.jsonl").exists())
                yield {"path": out / f"{free}.npy", "rows": missing}


@told()
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
    refuse_held_out([arguments.manifest])
    everything = list(read_manifest(arguments.manifest))
    entries = [entry for entry in everything if entry["text"] or entry["source"] == WITHOUT_SPEECH]
    if not entries:
        raise ValueError(
            f"None of the {len(everything)} entries of {arguments.manifest} has a text, so there is nothing to learn "
            "from. train.labels.pseudo_label writes texts."
        )
    model = load_whisper(arguments.whisper)  # converts once, before several processes would
    wanted = wanted_rows(entries[: arguments.limit], model, arguments.copies, arguments.seed, CLEAN_SHARE)
    kept, done = clear_out(arguments.out, wanted)
    for what, times in sorted(done.items()):
        print(f"{times:,} {what}.")
    jobs = list(_jobs(arguments.out, wanted, kept))
    lines = list(kept.values())
    with tqdm(total=len(wanted), initial=len(kept), desc="Encoding", unit=" clips") as bar:
        for made in shared_out(
            _encode_shard, jobs, arguments.processes, start=_start_worker, arguments=(arguments.whisper,)
        ):
            lines += made
            bar.update(len(made))
    skipped = [line["skipped"] for line in lines if "skipped" in line]
    print(f"{len(lines) - len(skipped):,} utterances cached, {len(skipped)} skipped.")
    for reason in skipped[:20]:
        print(f"  {reason}")


if __name__ == "__main__":
    main()
