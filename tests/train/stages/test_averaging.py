"""The mean of checkpoints: of like with like only, with the words of the first."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from assistant.model.checkpoint import CheckpointConfig, CheckpointError, read_config, read_learnt, write_checkpoint
from assistant.model.connector import ConnectorConfig, build_connector
from train.stages import averaging

WORDS = (" c", " e", "g")


def write(folder: Path, seed: int, words: tuple[str, ...] = WORDS, lora: bool = False, layers: int = 1) -> Path:
    torch.manual_seed(seed)
    shape = ConnectorConfig(32, layers=layers)
    config = CheckpointConfig.of(shape, "whisper-base", "qwen2.5-coder-0.5b-instruct")
    matrices = {"lora_A": torch.zeros(2, 2)} if lora else None
    config = replace(config, lora={"r": 2}) if lora else config
    write_checkpoint(folder, config, build_connector(shape, words).learnt(), words, matrices)
    return folder


def state(folder: Path) -> dict[str, torch.Tensor]:
    return read_learnt(folder, read_config(folder))[0]


def test_the_command_writes_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [write(tmp_path / name, seed) for seed, name in enumerate("abc")]
    monkeypatch.setattr(sys, "argv", ["averaging", *map(str, folders), "--out", str(tmp_path / "mean")])
    averaging.main()
    parts, mean = [state(folder) for folder in folders], state(tmp_path / "mean")
    assert read_config(tmp_path / "mean") == read_config(folders[0])
    assert read_learnt(tmp_path / "mean", read_config(tmp_path / "mean"))[1] == WORDS
    for name in ("query", "head.blank.weight", "layers.0.block.mlp.0.bias"):
        torch.testing.assert_close(mean[name], sum(part[name] for part in parts) / 3, rtol=1e-3, atol=2e-3)
        assert not torch.equal(mean[name], parts[0][name])


def test_other_words_leave_the_head_of_the_first_and_twice_named_counts_twice(tmp_path: Path) -> None:
    first, second = write(tmp_path / "first", 1), write(tmp_path / "second", 2, words=(" c", " h"))
    config, mean, words = averaging.average([first, first, second])
    parts = [state(first), state(second)]
    assert config == read_config(first) and words == WORDS
    for name, value in mean.items():
        torch.testing.assert_close(value, (2 * parts[0][name] + parts[1][name]) / 3)


@pytest.mark.parametrize(("other", "reason"), [({"layers": 2}, "shape"), ({"lora": True}, "LoRA")])
def test_only_like_is_averaged_with_like(tmp_path: Path, other: dict[str, object], reason: str) -> None:
    first, second = write(tmp_path / "first", 1), write(tmp_path / "second", 2, **other)  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=reason):
        averaging.average([first, second])


def test_a_missing_checkpoint_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["averaging", str(tmp_path / "gone"), "--out", str(tmp_path / "mean")])
    with pytest.raises(SystemExit, match="gone"):
        averaging.main()
    assert not (tmp_path / "mean").exists()
