"""A checkpoint of the form before: converted it reads what it read, and what cannot be converted is told why."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from assistant.model.checkpoint import CheckpointError, read_config, read_connector, read_learnt
from assistant.model.spelling import word_rows
from tests.conftest import WIDTH, WORDS, tiny_connector
from train.stages import conversion


@pytest.fixture
def old(tmp_path: Path, tiny_llm_folder: Path, tiny_whisper_folder: Path, tiny_whisper: object) -> Path:
    """The tiny connector as it would have been written before: spellings of its LLM, a row of bytes for each."""
    folder = tmp_path / "old"
    folder.mkdir()
    connector = tiny_connector("vocabulary")
    shape = {"encoder_width": 64, "llm_width": WIDTH, "layers": 1, "words": len(WORDS)}
    names = {"whisper": str(tiny_whisper_folder), "llm": str(tiny_llm_folder), "lora": None}
    hashes = {"whisper_sha256": None, "llm_sha256": None}
    (folder / "config.json").write_text(json.dumps({"connector": shape, **names, **hashes}))
    rows = word_rows(tiny_whisper.decoder.token_embedding.weight.half().float(), WORDS)  # type: ignore[attr-defined]
    scales = (rows.abs().amax(1) / 127).half()
    head = {
        "spellings": torch.tensor(AutoTokenizer.from_pretrained(tiny_llm_folder)(list(WORDS)).input_ids).int(),
        "head.weight": (rows / scales[:, None].float()).round().clamp(-127, 127).to(torch.int8),
        "head.scales": scales,
        "head.bias": torch.zeros(len(WORDS)).half(),
        "blank.weight": connector.head.blank.weight.half(),
        "blank.bias": connector.head.blank.bias.half(),
    }
    layers = {name: value.half() for name, value in connector.learnt().items() if not name.startswith("head.")}
    save_file({**layers, **head}, folder / "connector.safetensors")
    return folder


def test_what_was_learnt_and_read_stays(old: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["conversion", str(old), "--out", str(tmp_path / "new")])
    conversion.main()
    config = read_config(tmp_path / "new")
    assert config.llm is None and config.connector.llm_width is None
    learnt, words = read_learnt(tmp_path / "new", config)
    assert words == WORDS
    before = load_file(old / "connector.safetensors")
    for name, value in learnt.items():
        assert torch.equal(value, before[name.replace("head.blank", "blank")].float()), name
    rows = before["head.weight"].float() * before["head.scales"].float()[:, None]
    assert torch.equal(read_connector(tmp_path / "new", config).state_dict()["head.matrix.weight"], rows)


def test_what_cannot_be_converted_is_told_why(old: Path, tmp_path: Path, tiny_checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="form of today"):
        conversion.convert(tiny_checkpoint, tmp_path / "new")
    state = load_file(old / "connector.safetensors")
    save_file({**state, "head.weight": state["head.weight"].flip(0).contiguous()}, old / "connector.safetensors")
    with pytest.raises(CheckpointError, match="the rows of its words are not those of"):
        conversion.convert(old, tmp_path / "new")
    save_file({**state, "spellings": state["spellings"][:, :1].contiguous()}, old / "connector.safetensors")
    with pytest.raises(CheckpointError, match="not every word can be told"):
        conversion.convert(old, tmp_path / "new")
    with pytest.raises(CheckpointError, match="cannot be converted"):
        conversion.convert(tmp_path / "nowhere", tmp_path / "new")
    assert not (tmp_path / "new").exists()
