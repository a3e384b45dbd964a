"""Interrupt and resume: everything a run needs to go on, in one safetensors file written atomically.

All randomness of a step is drawn from (seed, step), so no generator state has to be kept.
"""

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn


def save_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Save parameters, optimiser moments and the number of finished steps."""
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    partial = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, {"step": str(step)})
    os.replace(partial, path)


def load_state(path: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote; returns the number of finished steps."""
    with safe_open(path, "pt") as file:
        step = int(file.metadata()["step"])
    module_state: dict[str, torch.Tensor] = {}
    moments: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in load_file(path).items():
        owner, rest = name.split(".", 1)
        if owner == "module":
            module_state[rest] = value
        else:
            index, moment = rest.split(".")
            moments.setdefault(int(index), {})[moment] = value
    module.load_state_dict(module_state)
    optimizer.load_state_dict({**optimizer.state_dict(), "state": moments})
    return step
