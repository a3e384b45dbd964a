"""One checkpoint from several of the same origin: the mean of their weights (model soups, arXiv 2203.05482).

    python -m train.stages.averaging assets/checkpoints/v1 runs/adaptation/checkpoint --out runs/average

What a connector learns from new speech it pays for with some of what it knew. The mean keeps most of both; a
checkpoint that is named twice counts twice. The words that the head reads are those of the first.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from assistant.model.checkpoint import CheckpointConfig, CheckpointError, read_config, read_learnt, write_checkpoint
from train.command_line import Files, command_line, told


def average(folders: Sequence[Path]) -> tuple[CheckpointConfig, dict[str, Tensor], tuple[str, ...]]:
    """The configuration of the first, the mean of what all have learnt, and the words of the first.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read, has LoRA weights, or is of another shape or other base models than the first.
    """
    config = read_config(folders[0])
    states: list[dict[str, Tensor]] = []
    for folder in folders:
        if (other := read_config(folder)).lora is not None:
            raise CheckpointError(f"{folder} has LoRA weights. Only connectors are averaged: give stage 1 checkpoints.")
        learnt, _ = read_learnt(folder, other)
        if other != config or (states and learnt.keys() != states[0].keys()):
            raise CheckpointError(f"{folder} is not of the shape and base models of {folders[0]}.")
        states.append(learnt)
    mean = {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}
    return config, mean, read_learnt(folders[0], config)[1]


def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="+", action=Files)
    arguments = parser.parse_args()
    with told():
        write_checkpoint(arguments.out, *average(arguments.checkpoint))


if __name__ == "__main__":
    main()
