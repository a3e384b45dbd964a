"""One checkpoint from several of the same origin: the mean of their weights (model soups, arXiv 2203.05482).

    python -m train.averaging assets/checkpoints/v1 runs/adaptation/checkpoint --out runs/average

What a connector learns from new speech it pays for with some of what it knew. The mean keeps most of both.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from assistant.checkpoint import CheckpointConfig, CheckpointError, read_config, read_connector, write_checkpoint
from assistant.connector import Connector


def average(folders: Sequence[Path]) -> tuple[CheckpointConfig, Connector]:
    """The configuration that all of the checkpoints share, and a connector whose weights are the mean of theirs.

    Raises
    ------
    CheckpointError
        A checkpoint cannot be read, has LoRA weights, or is of another shape or other words than the first.
    """
    config, states = read_config(folders[0]), []
    for folder in folders:
        if (other := read_config(folder)).lora is not None:
            raise CheckpointError(f"{folder} has LoRA weights. Only connectors are averaged: give stage 1 checkpoints.")
        state = read_connector(folder, other).state_dict()
        states.append(state)
        if other != config or ("spellings" in state and not state["spellings"].equal(states[0]["spellings"])):
            raise CheckpointError(f"{folder} is not of the shape, base models and words of {folders[0]}.")
    connector = read_connector(folders[0], config)
    for name, value in connector.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.stack([state[name] for state in states]).mean(0))
    return config, connector


def main() -> None:
    """Command line; see the top of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    try:
        write_checkpoint(arguments.out, *average(arguments.checkpoint))
    except (CheckpointError, OSError) as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
