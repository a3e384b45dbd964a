"""An LLM stored in int8 is, read again, bit for bit the one that was quantised; LoRA finds its place in it."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from assistant.latency import StageClock
from assistant.model import stored_llm
from assistant.model.decoder import lean
from assistant.model.llm import LLM, load_llm
from assistant.model.prompt import Message
from assistant.model.quantisation import HalfEmbedding, quantise
from assistant.model.weights import WeightsError, intact, kept, registry
from tests.conftest import WIDTH

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "o_proj"], "init_lora_weights": False}
NAME = next(name for name, model in registry().items() if model.kind == "llm")


@pytest.fixture
def known_llm(tiny_llm_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny LLM under a name of `models.toml`, and an empty cache."""
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(stored_llm, "kept", kept)
    monkeypatch.setattr(stored_llm, "llm_source", lambda _: tiny_llm_folder)
    return tiny_llm_folder


@torch.inference_mode()
def logits(llm: LLM) -> torch.Tensor:
    torch.manual_seed(0)
    message = Message("user", ["Say: ", torch.randn(3, WIDTH), " twice"])
    return llm._prefill(llm.prompt([message]))[0]


def as_quantised(folder: Path) -> LLM:
    """The way of an LLM that is not in `models.toml`."""
    return load_llm(str(folder), "int8")


def test_what_is_stored_is_what_was_quantised(known_llm: Path) -> None:
    llm, expected = load_llm(NAME, "int8"), as_quantised(known_llm)
    assert stored_llm.holds(stored_llm.prepared(NAME)) and not stored_llm.holds(known_llm)
    assert torch.equal(logits(llm), logits(expected))
    assert llm.end_tokens == expected.end_tokens
    assert llm.tokenizer.chat_template == expected.tokenizer.chat_template
    assert llm.embeddings.dtype == torch.float16 and torch.equal(llm.embeddings, expected.embeddings)
    assert not any(value.is_meta for value in [*llm.model.parameters(), *llm.model.buffers()])


def test_lora_stands_beside_what_is_stored(known_llm: Path) -> None:
    trained = load_llm(str(known_llm), "float32")
    torch.manual_seed(3)
    trained.add_lora(LORA)
    lora = (LORA, trained.lora_state())
    stored, quantised = load_llm(NAME, "int8", lora=lora), load_llm(str(known_llm), "int8", lora=lora)
    plain = logits(stored)
    assert torch.equal(plain, logits(quantised))
    with stored.lora(), quantised.lora():
        assert torch.equal(logits(stored), logits(quantised))
        assert not torch.allclose(logits(stored), plain, atol=1e-3)


def test_it_is_stored_once_and_again_when_damaged(known_llm: Path) -> None:
    folder = stored_llm.prepared(NAME)
    file = Path(folder) / stored_llm.FILE
    written = file.stat().st_mtime_ns
    assert stored_llm.prepared(NAME) == folder and file.stat().st_mtime_ns == written
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not intact(Path(folder))
    assert intact(Path(stored_llm.prepared(NAME))) and file.read_bytes() == data


def test_an_llm_of_another_family_is_loaded_as_transformers_loads_it(known_llm: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    AutoTokenizer.from_pretrained(known_llm).save_pretrained(other)
    AutoModelForCausalLM.from_pretrained(known_llm).save_pretrained(other)
    settings = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**settings, "hidden_act": "gelu"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_llm, "llm_source", lambda _: other)
        assert stored_llm.prepared(NAME) == other
        llm = load_llm(NAME, "int8")
    assert "".join(llm.stream(llm.prompt([Message("user", ["?"])]), StageClock(llm.device), 3)) is not None


def test_lora_that_cannot_stand_beside_it_is_refused_in_words(known_llm: Path) -> None:
    with pytest.raises(WeightsError, match="--precision float32"):
        load_llm(NAME, "int8", lora=({**LORA, "use_dora": True}, {}))


def test_embeddings_of_sixteen_bits_give_the_same_numbers(tiny_llm_folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_llm_folder, dtype=torch.float16)
    ids, table = torch.tensor([[3, 1]]), model.get_input_embeddings().weight.clone()
    lean(model)
    quantise(model)
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, HalfEmbedding) and embedding.weight.dtype == torch.float16
    assert torch.equal(embedding(ids), table[ids].float())
