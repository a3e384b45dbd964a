"""Interrupt and resume: everything a run needs to go on, in one safetensors file written atomically.

All randomness of a step is drawn from (seed, step) and the learning rate follows from the step, so neither generators
nor a scheduler have anything to keep. Frozen parameters are not kept either: the base models are where they came from.
"""

import re
from pathlib import Path
from typing import Any

import torch
import torch.distributed as distributed
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)

from assistant.model.checkpoint import not_finite, write_tensors


class StateError(ValueError):
    """The state cannot be used; the message says why and what to do."""


def save_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    """Save parameters, optimiser moments and the number of finished steps; call it on every process of a run.

    Works for plain, distributed and sharded (FSDP) models: the file is the same.

    Raises
    ------
    OSError
        It cannot be written, as on a full disk; the file stays as it is.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    parameters: Any = get_model_state_dict(model, options=options)  # their types allow much that does not occur here
    moments: Any = get_optimizer_state_dict(model, optimizer, options=options)
    if distributed.is_initialized() and distributed.get_rank() != 0:
        return  # gathered on the first process only
    tensors = {f"module/{name}": value for name, value in parameters.items()}
    for parameter, state in moments["state"].items():
        tensors |= {f"optimizer/{parameter}/{name}": value for name, value in state.items()}
    write_tensors(path, tensors, {"step": str(step)})


def load_state(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Restore what `save_state` wrote; returns the number of finished steps.

    Raises
    ------
    StateError
        The file is damaged, or of a model of another shape or other words: other data or another recipe.
    """
    try:
        with safe_open(path, "pt") as file:
            step = int(file.metadata()["step"])
        tensors = load_file(path)
        if odd := next(
            (name for name in tensors if not re.fullmatch("module/[^/]+|optimizer/[^/]+/[^/]+", name)), None
        ):
            raise ValueError(f"it holds {odd}, which no training run writes")
        if broken := not_finite(tensors):
            raise ValueError(f"{broken} holds values that are no numbers")
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise StateError(
            f"{path} cannot be gone on from: {error}. Put a copy of it back, or delete it to begin anew."
        ) from error
    parameters: dict[str, Tensor] = {}
    moments: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        owner, *rest = name.split("/")
        if owner == "module":
            parameters[rest[0]] = value
        else:
            moments.setdefault(rest[0], {})[rest[1]] = value
    options = StateDictOptions(full_state_dict=True, ignore_frozen_params=True, strict=False)
    groups = get_optimizer_state_dict(model, optimizer, options=options)["param_groups"]
    known: Any = get_model_state_dict(model, options=options)
    wrong = {name for name in known.keys() | parameters.keys() if not _alike(known.get(name), parameters.get(name))}
    if wrong:
        raise StateError(
            f"{path} is the state of another model ({', '.join(sorted(wrong)[:3])}): the recipe or the data, and with "
            "it the words of the head, changed since. Give another --out, or what the run was started with."
        )
    set_model_state_dict(model, dict(parameters), options=options)
    state: dict[str, Any] = {"state": moments, "param_groups": groups}
    set_optimizer_state_dict(model, optimizer, state, options=options)
    return step


def _alike(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether one can take the other's place: whole numbers are not learnt, so they must be equal."""
    if one is None or other is None or one.shape != other.shape:
        return False
    return one.is_floating_point() or one.cpu().equal(other.cpu())
