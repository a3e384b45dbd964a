"""The training loop of every stage, from batch to checkpoint, on one CPU, one GPU or several processes (accelerate).

A stage hands over an `Objective`: a model whose `forward` gives losses, and how to make batches for it. All randomness
of a step follows from the seed and the step, so a run that was killed goes on as if nothing had happened.
"""

import contextlib
import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from assistant.files import read_json_lines, write_json_lines
from assistant.model.speech_encoder import FRAMES_PER_SECOND
from train.stages.training_state import load_state, save_state


@dataclass(frozen=True)
class Loop:
    """How long and how fast to learn; the `[loop]` table of a recipe."""

    steps: int
    frames_per_batch: int = 3200  # encoder frames (20 ms) a batch holds at most, padding included
    accumulate: int = 1  # batches that make a step
    warmup: int = 200  # steps
    decay: float = 0.35  # share of the steps over which the learning rate falls to zero
    clip: float = 1.0  # norm of the gradient
    precision: Literal["no", "bf16"] = "no"  # bf16: mixed, for GPUs and for CPUs that have it
    gradient_checkpointing: bool = False  # less memory, a third more time
    save_every: int = 200  # steps between checkpoints, and between evaluations
    keep_every: int = 0  # steps between checkpoints that stay, as `checkpoint-2000`, to be averaged; 0 keeps none
    log_every: int = 25
    workers: int = 0  # processes that prepare batches ahead
    seed: int = 1


class Objective(ABC):
    """What one stage learns."""

    model: nn.Module  # forward(**batch) -> losses by name; "loss" is descended, the others are logged

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """The optimiser's parameter groups: `params`, `lr` (the peak) and `weight_decay`."""

    @abstractmethod
    def lengths(self) -> list[int]:
        """Encoder frames of each training sample."""

    @abstractmethod
    def batch(self, indices: list[int], rng: np.random.Generator) -> dict[str, Any]:
        """The keyword arguments of the model's forward for these samples."""

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Figures on held-out samples."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what is shipped of the model, atomically."""

    def skipped(self) -> list[dict[str, str]]:
        """Samples that cannot be learnt from, each with the reason; listed in the run's folder."""
        return []


def fit(objective: Objective, loop: Loop, out: Path) -> None:
    """Train until `loop.steps`; continues the run in `out` when there is one.

    Writes `state.safetensors` (to go on), `checkpoint/` (to use), `log.jsonl`, `skipped.jsonl` and TensorBoard events.
    """
    accelerator = Accelerator(mixed_precision=loop.precision, cpu=not torch.cuda.is_available())
    optimizer = torch.optim.AdamW(objective.groups(), betas=(0.9, 0.98), fused=True)
    peaks = [group["lr"] for group in optimizer.param_groups]
    model, prepared = accelerator.prepare(objective.model, optimizer)

    out.mkdir(parents=True, exist_ok=True)
    state = out / "state.safetensors"
    start = load_state(state, model, optimizer) if state.exists() else 0
    if start >= loop.steps:
        accelerator.print(f"{out} has its {start} steps. Ask for more steps to go on.")
        return
    lengths = objective.lengths()
    hours = sum(lengths) / FRAMES_PER_SECOND / 3600
    accelerator.print(
        f"{len(lengths):,} samples, {hours:.1f} h, {trainable(objective.model):,} parameters learn, "
        f"{len(objective.skipped())} samples skipped, from step {start} of {loop.steps}"
    )
    plan = BatchPlan(objective, loop, start, accelerator.process_index, accelerator.num_processes)
    micro_batches = iter(DataLoader(plan, batch_size=None, num_workers=loop.workers))

    log = Log(out, start, objective.skipped()) if accelerator.is_main_process else None
    seen, clock = 0, time.perf_counter()
    for step in tqdm(
        range(start, loop.steps),
        initial=start,
        total=loop.steps,
        desc=out.name,
        unit=" steps",
        mininterval=5,
        disable=not accelerator.is_main_process,
    ):
        torch.manual_seed(loop.seed * 1_000_003 + step)
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * learning_rate(step, loop)
        totals: dict[str, float] = {}
        for micro in range(loop.accumulate):
            batch = send_to_device(next(micro_batches), accelerator.device)
            last = micro + 1 == loop.accumulate
            with contextlib.nullcontext() if last else accelerator.no_sync(model):
                losses: dict[str, Tensor] = model(**batch)
                accelerator.backward(losses["loss"] / loop.accumulate)
            for name, value in losses.items():
                totals[name] = totals.get(name, 0.0) + value.item() / loop.accumulate
            seen += len(batch["lengths"]) * accelerator.num_processes
        accelerator.clip_grad_norm_(model.parameters(), loop.clip)
        prepared.step()
        prepared.zero_grad()

        done = step + 1
        if done % loop.log_every == 0 or done == loop.steps:
            means = accelerator.reduce(torch.tensor(list(totals.values()), device=accelerator.device), "mean").tolist()
            if log:
                rate = seen / (time.perf_counter() - clock)
                log.write(done, dict(zip(totals, means, strict=True)), samples_per_s=rate)
        if log and loop.keep_every and done % loop.keep_every == 0:
            objective.export(out / f"checkpoint-{done}")
        if done % loop.save_every == 0 or done == loop.steps:
            save_state(state, model, optimizer, done)  # every process takes part, the first one writes
            if log:
                objective.export(out / "checkpoint")
                objective.model.eval()
                log.write(done, objective.evaluate())
                objective.model.train()
            accelerator.wait_for_everyone()
    accelerator.end_training()


def learning_rate(step: int, loop: Loop) -> float:
    """Share of the peak: warm-up, a plateau, and a linear fall to zero.

    Until the fall nothing depends on `steps`: a finished run is made longer by asking for more of them.
    """
    return min((step + 1) / max(loop.warmup, 1), 1.0, (loop.steps - step) / max(loop.decay * loop.steps, 1))


def trainable(model: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


class BatchPlan(Dataset[dict[str, Any]]):
    """Which samples each batch of one process holds, for every batch that is left of a run; made on demand."""

    def __init__(self, objective: Objective, loop: Loop, start: int, process: int = 0, processes: int = 1) -> None:
        self._objective, self._seed = objective, loop.seed
        order = batches(objective.lengths(), loop.frames_per_batch, loop.seed)
        # Batch n of the run belongs to process n % processes: more processes make larger steps, not other data.
        numbers = range(loop.steps * loop.accumulate * processes)
        first = start * loop.accumulate * processes
        self._batches = [
            (number, batch)
            for number, batch in zip(numbers, order, strict=False)
            if number >= first and number % processes == process
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index >= len(self._batches):
            raise IndexError(index)
        number, indices = self._batches[index]
        return self._objective.batch(indices, np.random.default_rng([self._seed, number]))


def batches(lengths: list[int], frames: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of indices, similar lengths together, every epoch in another order, all decided by the seed."""
    epoch = 0
    while True:
        rng = np.random.default_rng([seed, epoch])
        jitter = rng.uniform(0, 25, len(lengths))
        order = rng.permutation(len(lengths))
        order = order[np.argsort(np.asarray(lengths)[order] + jitter[order], kind="stable")]
        epoch_batches: list[list[int]] = []
        batch: list[int] = []
        longest = 0
        for index in order.tolist():
            longest = max(longest, lengths[index])
            if batch and longest * (len(batch) + 1) > frames:
                epoch_batches.append(batch)
                batch, longest = [], lengths[index]
            batch.append(index)
        epoch_batches.append(batch)
        yield from (epoch_batches[i] for i in rng.permutation(len(epoch_batches)))
        epoch += 1


class Log:
    """Figures of a run, as JSON lines and for TensorBoard; what was logged after the last checkpoint is dropped."""

    def __init__(self, out: Path, start: int, skipped: list[dict[str, str]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._path = out / "log.jsonl"
        known = list(read_json_lines(self._path)) if self._path.exists() else []
        write_json_lines(self._path, (figures for figures in known if figures["step"] <= start))
        write_json_lines(out / "skipped.jsonl", skipped)
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, figures: dict[str, float], **more: float) -> None:
        """Log figures at a number of finished steps; shown above the progress bar, too."""
        figures = figures | more
        with self._path.open("a", encoding="utf-8") as file:
            rounded = {name: round(value, 4) if math.isfinite(value) else None for name, value in figures.items()}
            file.write(json.dumps({"step": step, **rounded}) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()
        tqdm.write(f"step {step}: " + ", ".join(f"{name} {value:.3f}" for name, value in figures.items()))
