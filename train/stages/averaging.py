"""One checkpoint from several of the same origin: the mean of their weights (model soups, arXiv 2203.05482).

    python -m train.stages.averaging assets/checkpoints/v1 runs/adaptation/checkpoint --out runs/average

What a connector learns from new speech it pays for with some of what it knew. The mean keeps most of both; a
checkpoint that is named twice counts twice. What the head reads is never learnt and stays as the first one has it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from assistant.model.checkpoint import CheckpointConfig, CheckpointError, read_config, read_connector, write_checkpoint
from assistant.model.connector import Connector
from train.command_line import Files, command_line, told


def average(folders: Sequence[Path]) -> tuple[CheckpointConfig, Connector]:
    """The configuration of the first, and a connector of its words whose learnt weights are the mean of all.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read, has LoRA weights, or is of another shape or other base models than the first.
    """
    config, states = read_config(folders[0]), []
    for folder in folders:
        if (other := read_config(folder)).lora is not None:
            raise CheckpointError(f"{folder} has LoRA weights. Only connectors are averaged: give stage 1 checkpoints.")
        if replace(other, connector=replace(other.connector, words=config.connector.words)) != config:
            raise CheckpointError(f"{folder} is not of the shape and base models of {folders[0]}.")
        states.append(read_connector(folder, other).state_dict())
    connector = read_connector(folders[0], config)
    fixed = {f"head.{name}" for name in connector.vocabulary.words()} if connector.vocabulary else set()
    for name, value in connector.state_dict().items():
        if name not in fixed:
            value.copy_(torch.stack([state[name] for state in states]).mean(0))
    return config, connector


def main() -> None:
    """Command line; see the top of the file."""
    parser = command_line(__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="+", action=Files)
    arguments = parser.parse_args()
    with told():
        write_checkpoint(arguments.out, *average(arguments.checkpoint))


if __name__ == "__main__":
    main()
