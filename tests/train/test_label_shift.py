"""The head's expectation of words: from the training texts to English, in the bias alone."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from assistant.checkpoint import CheckpointConfig, read_config, read_connector, write_checkpoint
from assistant.connector import ConnectorConfig, QFormerConnector
from assistant.weights import llm_source
from train import label_shift

LLM = "qwen2.5-coder-0.5b-instruct"
TEXTS = ["account the account", "the account of the account", "the water of the account"]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(llm_source(LLM))


def ids(tokenizer: PreTrainedTokenizerBase, *words: str) -> list[int]:
    return [tokenizer(word, add_special_tokens=False).input_ids[0] for word in words]


def features(folder: Path) -> Path:
    """A feature cache that says `TEXTS`."""
    folder.mkdir()
    np.save(folder / "0-0000.npy", np.zeros((len(TEXTS), 32), np.float16))
    lines = [{"start": row, "frames": 1, "text": text, "source": "synthetic-flite"} for row, text in enumerate(TEXTS)]
    (folder / "0-0000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def write(folder: Path, tokens: list[int], projection: str = "vocabulary") -> Path:
    torch.manual_seed(1)
    shape = ConnectorConfig(
        32,
        16,
        layers=1,
        tokens=len(tokens),
        projection=projection,  # type: ignore[arg-type]
    )
    config = CheckpointConfig.of(shape, "whisper-base", LLM)
    write_checkpoint(folder, config, QFormerConnector(shape, None, torch.tensor(tokens)))
    return folder


def test_what_the_training_texts_say_too_often_becomes_less_likely(tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = ids(tokenizer, " account", " the", " water", "ing")
    account, the, water, piece = label_shift.log_ratios(tokenizer, tokens, TEXTS).tolist()
    assert account < water
    assert account < the
    assert piece == 0
    assert account + the + water == pytest.approx(0, abs=1e-5)


def test_the_ratio_is_that_of_the_frequencies(tokenizer: PreTrainedTokenizerBase) -> None:
    """`people` and `water` are said as often as each other here, so the ratio is English's own; the limit is kept."""
    tokens = ids(tokenizer, " people", " water")
    people, water = label_shift.log_ratios(tokenizer, tokens, ["people water"]).tolist()
    expected = np.log(label_shift.word_frequency("people", "en") / label_shift.word_frequency("water", "en"))
    assert people - water == pytest.approx(expected, abs=1e-4)
    rare = ids(tokenizer, " the", " account")
    ratios = label_shift.log_ratios(tokenizer, rare, ["account " * 200_000])
    assert ratios.abs().max() == pytest.approx(label_shift.MOST)


def test_the_command_changes_the_bias_alone(
    tokenizer: PreTrainedTokenizerBase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = ids(tokenizer, " account", " the", " water", "ing")
    folder = write(tmp_path / "before", tokens)
    command = ["label_shift", str(folder), str(features(tmp_path / "features")), "--out", str(tmp_path / "after")]
    monkeypatch.setattr(sys, "argv", command)
    label_shift.main()
    before, after = (read_connector(path, read_config(path)).state_dict() for path in (folder, tmp_path / "after"))
    assert [name for name in before if not before[name].equal(after[name])] == ["head.bias"]
    change = after["head.bias"] - before["head.bias"]
    expected = label_shift.STRENGTH * label_shift.log_ratios(tokenizer, tokens, TEXTS)
    torch.testing.assert_close(change, expected, rtol=1e-2, atol=2e-3)


@pytest.mark.parametrize("missing", ["checkpoint", "features", "vocabulary"])
def test_what_is_missing_is_named(missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "before", [3, 5], "linear" if missing == "vocabulary" else "vocabulary")
    cache = tmp_path / "features" if missing == "features" else features(tmp_path / "features")
    checkpoint = tmp_path / "checkpoint" if missing == "checkpoint" else folder
    monkeypatch.setattr(sys, "argv", ["label_shift", str(checkpoint), str(cache), "--out", str(tmp_path / "after")])
    with pytest.raises(SystemExit, match=missing):
        label_shift.main()
    assert not (tmp_path / "after").exists()
