"""What is shipped of a trained speech-LLM: `config.json`, `connector.safetensors` and, when trained, LoRA weights.

The base models are named in `config.json`, never copied.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from assistant.files import whole, write_text
from assistant.model.connector import Connector, ConnectorConfig, build_connector
from assistant.model.quantisation import chosen, quantise
from assistant.model.weights import registry

LORA = "lora.safetensors"
TUNED_LLM = "llm"  # folder beside them with an LLM that was tuned as a whole


class CheckpointError(RuntimeError):
    """The checkpoint cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class CheckpointConfig:
    """`config.json`: the connector's shape and the base models by the name and SHA-256 of `models.toml`.

    `lora` holds peft's settings (rank, alpha, target modules) when `lora.safetensors` is there.
    """

    connector: ConnectorConfig
    whisper: str
    llm: str
    whisper_sha256: str | None = None
    llm_sha256: str | None = None
    lora: dict[str, Any] | None = None

    @classmethod
    def of(cls, connector: ConnectorConfig, whisper: str, llm: str) -> "CheckpointConfig":
        """The configuration of a new connector between two base models; hashes where `models.toml` knows them."""
        models = registry()
        hashes = {name: models[name].sha256 for name in (whisper, llm) if name in models}
        return cls(connector, whisper, llm, hashes.get(whisper), hashes.get(llm))


def write_checkpoint(
    folder: Path, config: CheckpointConfig, connector: Connector, lora: dict[str, Tensor] | None = None
) -> None:
    """Write config, connector and LoRA matrices, each file whole: float16, the rows of words int8."""
    _save(_packed(connector.state_dict()), folder / "connector.safetensors")
    if lora is not None:
        _save(lora, folder / LORA)
    write_text(folder / "config.json", json.dumps(asdict(config), indent=2) + "\n")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    halved = {name: value.half() if value.is_floating_point() else value for name, value in tensors.items()}
    if broken := not_finite(halved):
        raise CheckpointError(f"{path} is not written: {broken} holds values that are no numbers in float16.")
    write_tensors(path, halved)


def write_tensors(path: Path, tensors: dict[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file whole. Raises OSError, as of a full disk."""
    with whole(path) as partial:
        try:
            save_file({name: value.contiguous().cpu() for name, value in tensors.items()}, partial, about)
            with safe_open(partial, "pt"):  # is all of it there? to a full device it writes without a word
                pass
        except SafetensorError as error:
            raise OSError(f"{path} cannot be written: {error}") from error


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """The name of the first tensor that holds NaN or infinity; None when all is well."""
    wrong = (name for name, value in tensors.items() if value.is_floating_point() and not value.isfinite().all())
    return next(wrong, None)


# What a head's tensors are called in the file; `head.matrix` is there as `head`.
_HEAD = {f"head.{name}": name for name in ("blank.weight", "blank.bias", "spellings", "residual.weight")}
_HEAD |= {f"head.matrix.{name}": f"head.{name}" for name in ("weight", "bias")}
_IN_FILE = {stored: name for name, stored in _HEAD.items()}


def _packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A connector's state as in the file; of a head that reads words int8 rows and the scale of each, for it is most
    of the whole."""
    state = {_HEAD.get(name, name): value for name, value in state.items()}
    if "spellings" not in state:
        return state
    rows = state["head.weight"]
    scales = (rows.abs().amax(1) / 127).clamp(min=1e-6).half().float()
    steps = (rows / scales[:, None]).round().clamp(-127, 127).to(torch.int8)
    return {**state, "head.weight": steps, "head.scales": scales, "spellings": state["spellings"].to(torch.int32)}


def _unpacked(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """What `_packed` made of a connector's state, undone."""
    if "head.scales" in state:
        scales = state.pop("head.scales").float()
        state["head.weight"] = state["head.weight"] * scales[:, None]
    return {_IN_FILE.get(name, name): value for name, value in state.items()}


def read_config(folder: Path) -> CheckpointConfig:
    """The configuration of a checkpoint folder.

    Raises
    ------
    CheckpointError
        No such folder, or its `config.json` is not one of ours.
    """
    try:
        entries = json.loads((folder / "config.json").read_text("utf-8"))
        known = {field.name for field in fields(CheckpointConfig)}
        if unknown := set(entries) - known:
            raise ValueError(f"unknown entries {', '.join(sorted(unknown))}")
        if (folder / TUNED_LLM).is_dir():
            entries |= {"llm": str(folder / TUNED_LLM), "llm_sha256": None}
        return CheckpointConfig(**{**entries, "connector": ConnectorConfig(**entries["connector"])})
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder} holds no checkpoint (no config.json). Give a folder that does.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(f"{folder / 'config.json'} cannot be read: {error}") from error


def read_connector(folder: Path, config: CheckpointConfig, embeddings: Tensor | None = None) -> Connector:
    """The trained connector to go on with, in float32 on the CPU; see `load_connector` for one to answer with.

    It is tied to the LLM's input embeddings [vocabulary, llm_width]; without them it reads words and nothing else.

    Raises
    ------
    CheckpointError
        The file is missing or damaged, or the checkpoint was made for another LLM.
    """
    try:
        state = _unpacked(load_file(folder / "connector.safetensors"))
        if broken := not_finite(state):
            raise ValueError(f"{broken} holds values that are no numbers")
        connector = build_connector(config.connector, embeddings, state.get("head.spellings"))
        connector.load_state_dict(state)
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be used: {error}") from error
    return connector.eval().requires_grad_(False)


def load_connector(
    folder: Path,
    config: CheckpointConfig,
    embeddings: Tensor | None = None,
    precision: str = "auto",
    device: torch.device | str = "cpu",
) -> Connector:
    """The trained connector to answer with: as `read_connector`, on `device`, in int8 where the LLM is, else float32.

    In int8 it takes half the time and reads as well (docs/experiments.md).

    Raises
    ------
    CheckpointError
        See `read_connector`.
    """
    connector = read_connector(folder, config, embeddings).to(device)
    if chosen(precision, torch.device(device)) == "int8":
        quantise(connector)
    return connector


def read_lora(folder: Path, config: CheckpointConfig) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """peft's settings and the LoRA matrices of a checkpoint; None when it has none.

    Raises
    ------
    CheckpointError
        `config.json` promises matrices that are missing or damaged.
    """
    if config.lora is None:
        return None
    try:
        matrices = load_file(folder / LORA)
        if broken := not_finite(matrices):
            raise ValueError(f"{broken} holds values that are no numbers")
        return config.lora, matrices
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"{folder / LORA} cannot be read: {error}") from error
