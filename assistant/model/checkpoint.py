"""What is shipped of a trained speech-LLM. A folder of three files, and nothing in it that others have made:

    config.json             the shape of the connector, and which Whisper it hears with
    connector.safetensors   the trained layers, float16
    words.txt               what the head can read, one class a line, in the order of the classes

Nothing in these is an LLM's: any will do. The rows of the head are Whisper's own embeddings of the words, and how an
LLM writes them its tokenizer says; both are made while loading (`spelling.py`).

A line of `words.txt` is the text of a class, in UTF-8. A space is written `▁` (U+2581): `▁the` begins a written word
with the space before it, `ing` continues one. Whatever else cannot be seen, the backslash and `▁` itself are written
as `\\uXXXX` or `\\UXXXXXXXX`, so that no editor, and neither kind of line end, can change what a line says.

Two teachings belong to one LLM, which their `config.json` names: a linear projection leads to its vectors, and LoRA
(`lora.safetensors`) stands beside its matrices.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from assistant.files import whole, write_text
from assistant.model.connector import Connector, ConnectorConfig, build_connector
from assistant.model.quantisation import chosen, quantise
from assistant.model.speech_encoder import whisper_embeddings
from assistant.model.spelling import Writer, word_rows
from assistant.model.weights import registry

LORA = "lora.safetensors"
WORDS = "words.txt"
TUNED_LLM = "llm"  # folder beside them with an LLM that was tuned as a whole
SPACE = "▁"


class CheckpointError(RuntimeError):
    """The checkpoint cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class CheckpointConfig:
    """`config.json`: the connector's shape and the base models by the name and SHA-256 of `models.toml`.

    `llm` is None where any LLM will do. `lora` holds peft's settings (rank, alpha, target modules) when
    `lora.safetensors` is there.
    """

    connector: ConnectorConfig
    whisper: str
    whisper_sha256: str | None = None
    llm: str | None = None
    llm_sha256: str | None = None
    lora: dict[str, Any] | None = None

    @classmethod
    def of(
        cls, connector: ConnectorConfig, whisper: str, llm: str, lora: dict[str, Any] | None = None
    ) -> "CheckpointConfig":
        """The configuration of a new connector; of `llm` where it belongs to one. Hashes where `models.toml` knows."""
        models = registry()
        if not connector.linear:
            connector = replace(connector, llm_width=None)
        owner = llm if connector.linear or lora is not None else None
        whisper_sha256, llm_sha256 = (
            models[name].sha256 if name is not None and name in models else None for name in (whisper, owner)
        )
        return cls(connector, whisper, whisper_sha256, owner, llm_sha256, lora)

    def fits(self, llm: str | None) -> bool:
        """Whether it answers with an LLM, None being whichever the checkpoint likes best."""
        return llm is None or self.llm is None or self.llm == llm


def write_checkpoint(
    folder: Path,
    config: CheckpointConfig,
    learnt: dict[str, Tensor],
    words: Sequence[str] = (),
    lora: dict[str, Tensor] | None = None,
) -> None:
    """Write a connector's `learnt()` state, the words that it reads and LoRA matrices, each file whole."""
    _save(learnt, folder / "connector.safetensors")
    if words:
        write_text(folder / WORDS, "".join(f"{_line(word)}\n" for word in words))
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


def _line(word: str) -> str:
    """A class as a line of `words.txt`."""

    def escaped(letter: str) -> str:
        if letter == " ":
            return SPACE
        if letter.isprintable() and letter not in ("\\", SPACE):
            return letter
        return f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"

    return "".join(map(escaped, word))


def _word(line: str) -> str:
    """A line of `words.txt` as the class that it is of."""
    escape = re.compile(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})|" + SPACE)
    return escape.sub(lambda found: chr(int(found[1] or found[2], 16)) if found[0] != SPACE else " ", line)


def read_config(folder: Path) -> CheckpointConfig:
    """The configuration of a checkpoint folder.

    Raises
    ------
    CheckpointError
        No such folder, its `config.json` is not one of ours, or it was written before checkpoints knew no LLM.
    """
    try:
        entries = json.loads((folder / "config.json").read_text("utf-8"))
        if "words" in entries["connector"]:
            raise CheckpointError(
                f"{folder} is a checkpoint of an earlier version, tied to an LLM that it need not know. Convert it "
                f"once: python -m train.stages.conversion {folder} --out FOLDER"
            )
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


def read_learnt(folder: Path, config: CheckpointConfig) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What `write_checkpoint` was given: the learnt state, in float32, and the words.

    Raises
    ------
    CheckpointError
        A file is missing or damaged.
    """
    try:
        state = {name: value.float() for name, value in load_file(folder / "connector.safetensors").items()}
        lines = (folder / WORDS).read_text("utf-8-sig").splitlines() if config.connector.reads else []
    except (OSError, SafetensorError, UnicodeDecodeError) as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be used: {error}") from error
    if broken := not_finite(state):
        raise CheckpointError(f"The checkpoint {folder} cannot be used: {broken} holds values that are no numbers.")
    return state, tuple(_word(line) for line in lines if line)


def read_connector(
    folder: Path, config: CheckpointConfig, writer: Writer | None = None, embeddings: Tensor | None = None
) -> Connector:
    """The trained connector to go on with, in float32 on the CPU; see `load_connector` for one to answer with.

    Parameters
    ----------
    writer: the LLM's that it is to speak to; without one it reads words and nothing else.
    embeddings: Whisper's, of its tokens [tokens, width]; without them they are read from its file.

    Raises
    ------
    CheckpointError
        A file is missing or damaged, or the checkpoint belongs to another LLM.
    """
    state, words = read_learnt(folder, config)
    try:
        connector = build_connector(config.connector, words, writer)
        if head := connector.vocabulary:
            rows = word_rows(whisper_embeddings(config.whisper) if embeddings is None else embeddings, words)
            state["head.matrix.weight"] = _in_bytes(rows.cpu())
            state["head.words_digest"] = head.state_dict()["words_digest"]
        connector.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"The checkpoint {folder} cannot be used: {error}") from error
    return connector.eval().requires_grad_(False)


def _in_bytes(rows: Tensor) -> Tensor:
    """Rows [words, width] rounded to 255 steps each: in every precision it then reads with the rows of int8.

    Replies hang on such digits: with rows unrounded the default LLM words half of its replies otherwise.
    """
    scales = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-6).half().float()
    return (rows / scales).round().clamp(-127, 127) * scales


def load_connector(
    folder: Path,
    config: CheckpointConfig,
    writer: Writer | None = None,
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
    connector = read_connector(folder, config, writer, embeddings).to(device)
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
