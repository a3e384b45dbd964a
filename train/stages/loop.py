"""The training loop of every stage, from batch to checkpoint, on one CPU, one GPU or several processes (accelerate).

A stage hands over an `Objective`: a model whose `forward` gives losses, and how to make batches for it. All randomness
of a step follows from the seed and the step, so a run that was killed goes on as if nothing had happened.

A step whose loss or gradient is not finite is left out: it changes nothing, and the log names its samples.
"""

import contextlib
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
from accelerate.utils import gather_object, send_to_device
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from assistant.files import whole_folder
from assistant.model.checkpoint import not_finite
from assistant.model.speech_encoder import FRAMES_PER_SECOND
from train.stages.log import Log
from train.stages.training_state import load_state, save_state

PATIENCE = 5  # steps in a row that may be left out


class TrainingError(ValueError):
    """Training has gone wrong and ends; the message says how, and what is left of it."""


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

    def named(self, indices: list[int], rng: np.random.Generator) -> list[str]:
        """What the batch of the same arguments holds, in words for the log; what is known to be broken comes first."""
        return [f"sample {index}" for index in indices]

    @abstractmethod
    def evaluate(self) -> dict[str, float]:
        """Figures on held-out samples."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what is shipped of the model into an empty folder."""

    def skipped(self) -> list[dict[str, str]]:
        """Samples that cannot be learnt from, each with the reason; listed in the run's folder."""
        return []


def fit(objective: Objective, loop: Loop, out: Path) -> None:
    """Train until `loop.steps`; continues the run in `out` when there is one.

    Writes `state.safetensors` (to go on), `checkpoint/` (to use), `log.jsonl`, `skipped.jsonl` and TensorBoard events.

    Raises
    ------
    TrainingError
        Several steps in a row had to be left out, or what was learnt is not finite. The last good checkpoint stays.
    StateError
        The run cannot be gone on with.
    OSError
        Something cannot be written. What was written before is whole.
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
    seen, clock, left_out, in_a_row = 0, time.perf_counter(), 0, 0
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
        suspects: list[tuple[int, list[int], bool]] = []  # batches of this step, and whether a loss was not finite
        for micro in range(loop.accumulate):
            number, indices, batch = next(micro_batches)
            batch = send_to_device(batch, accelerator.device)
            last = micro + 1 == loop.accumulate
            with contextlib.nullcontext() if last else accelerator.no_sync(model):
                losses: dict[str, Tensor] = model(**batch)
                accelerator.backward(losses["loss"] / loop.accumulate)
            values = {name: value.item() for name, value in losses.items()}
            for name, value in values.items():
                totals[name] = totals.get(name, 0.0) + value / loop.accumulate
            suspects.append((number, indices, not all(map(math.isfinite, values.values()))))
            seen += len(batch["lengths"]) * accelerator.num_processes
        norm = float(accelerator.clip_grad_norm_(model.parameters(), loop.clip))
        done = step + 1
        finite = math.isfinite(norm) and not any(guilty for *_, guilty in suspects)
        if accelerator.reduce(torch.tensor(float(not finite), device=accelerator.device), "sum").item() > 0:
            left_out, in_a_row = left_out + 1, in_a_row + 1
            samples = gather_object(
                [
                    (name, guilty)
                    for number, indices, guilty in suspects
                    for name in objective.named(indices, plan.draws(number))
                ]
            )
            if log:
                log.leave_out(done, [name for name, guilty in samples if guilty] or [name for name, _ in samples])
            if in_a_row == PATIENCE or done == left_out == loop.steps:
                raise TrainingError(
                    f"Training ends at step {done}: the loss or the gradient of {in_a_row} steps in a row was not a "
                    f"finite number. {_kept(out)} {out / 'log.jsonl'} names the samples of those steps: look at them, "
                    "or lower the learning rate."
                )
        else:
            prepared.step()
            in_a_row = 0
        prepared.zero_grad()

        if done % loop.log_every == 0 or done == loop.steps:
            means = accelerator.reduce(torch.tensor(list(totals.values()), device=accelerator.device), "mean").tolist()
            if log:
                rate = seen / (time.perf_counter() - clock)
                log.write(done, dict(zip(totals, means, strict=True)), samples_per_s=rate)
        kept = bool(loop.keep_every) and done % loop.keep_every == 0
        saved = done % loop.save_every == 0 or done == loop.steps
        if (kept or saved) and (broken := not_finite(learnt(objective.model))):
            raise TrainingError(f"Training ends at step {done}: {broken} is no longer finite. {_kept(out)}")
        if log and kept:
            _export(objective, out / f"checkpoint-{done}")
        if saved:
            if log:
                _export(objective, out / "checkpoint")
            # After the checkpoint: a run that was killed between them makes both again. Every process takes part.
            save_state(state, model, optimizer, done)
            if log:
                objective.model.eval()
                log.write(done, objective.evaluate())
                objective.model.train()
            accelerator.wait_for_everyone()
    if left_out:
        accelerator.print(f"{left_out} of {loop.steps - start} steps were left out; {out / 'log.jsonl'} says which.")
    accelerator.end_training()


def _export(objective: Objective, folder: Path) -> None:
    with whole_folder(folder) as partial:
        objective.export(partial)


def _kept(out: Path) -> str:
    there = (out / "state.safetensors").exists()
    return f"The last good checkpoint and state are in {out}." if there else "Nothing was saved."


def learning_rate(step: int, loop: Loop) -> float:
    """Share of the peak: warm-up, a plateau, and a linear fall to zero.

    Until the fall nothing depends on `steps`: a finished run is made longer by asking for more of them.
    """
    return min((step + 1) / max(loop.warmup, 1), 1.0, (loop.steps - step) / max(loop.decay * loop.steps, 1))


def learnt(model: nn.Module) -> dict[str, Tensor]:
    """The parameters that learn, by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def trainable(model: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(parameter.numel() for parameter in learnt(model).values())


class BatchPlan(Dataset[tuple[int, list[int], dict[str, Any]]]):
    """Each batch of one process that is left of a run: its number, its samples, what they are made to on demand."""

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

    def __getitem__(self, index: int) -> tuple[int, list[int], dict[str, Any]]:
        if index >= len(self._batches):
            raise IndexError(index)
        number, indices = self._batches[index]
        return number, indices, self._objective.batch(indices, self.draws(number))

    def draws(self, number: int) -> np.random.Generator:
        """All that is drawn for the batch of this number."""
        return np.random.default_rng([self._seed, number])


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
