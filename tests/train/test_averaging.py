"""The mean of checkpoints: of the weights, of like with like only, and a checkpoint that reads."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assistant.checkpoint import CheckpointConfig, CheckpointError, read_config, read_connector, write_checkpoint
from assistant.connector import ConnectorConfig, QFormerConnector
from train import averaging


def write(folder: Path, seed: int, tokens: tuple[int, ...] = (3, 5, 7), lora: bool = False) -> Path:
    torch.manual_seed(seed)
    shape = ConnectorConfig(32, 16, layers=1, words=len(tokens))
    config = CheckpointConfig.of(shape, "whisper-base", "qwen2.5-coder-0.5b-instruct")
    matrices = {"lora_A": torch.zeros(2, 2)} if lora else None
    config = replace(config, lora={"r": 2}) if lora else config
    write_checkpoint(folder, config, QFormerConnector(shape, None, torch.tensor(tokens)[:, None]), matrices)
    return folder


def state(folder: Path) -> dict[str, torch.Tensor]:
    return read_connector(folder, read_config(folder)).state_dict()


def test_the_command_writes_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [write(tmp_path / name, seed) for seed, name in enumerate("abc")]
    monkeypatch.setattr(sys, "argv", ["averaging", *map(str, folders), "--out", str(tmp_path / "mean")])
    averaging.main()
    parts, mean = [state(folder) for folder in folders], state(tmp_path / "mean")
    assert read_config(tmp_path / "mean") == read_config(folders[0])
    assert mean["spellings"].tolist() == [[3], [5], [7]]
    for name in ("query", "head.weight", "layers.0.block.mlp.0.bias"):
        torch.testing.assert_close(mean[name], sum(part[name] for part in parts) / 3, rtol=1e-3, atol=2e-3)
        assert not torch.equal(mean[name], parts[0][name])
    connector = read_connector(tmp_path / "mean", read_config(tmp_path / "mean"))
    assert isinstance(connector, QFormerConnector)
    assert set(connector.tokens(torch.randn(1, 40, 32), torch.tensor([40]))[0].tolist()) <= {3, 5, 7}


@pytest.mark.parametrize(
    ("other", "reason"),
    [({"tokens": (3, 5, 8)}, "words"), ({"tokens": (3, 5)}, "words"), ({"lora": True}, "LoRA")],
)
def test_only_like_is_averaged_with_like(tmp_path: Path, other: dict[str, object], reason: str) -> None:
    first, second = write(tmp_path / "first", 1), write(tmp_path / "second", 2, **other)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=reason):
        averaging.average([first, second])


def test_a_missing_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["averaging", str(tmp_path / "gone"), "--out", str(tmp_path / "mean")])
    with pytest.raises(SystemExit, match="gone"):
        averaging.main()
    assert not (tmp_path / "mean").exists()
