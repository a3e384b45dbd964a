"""The resident LLM: prompts with speech in them, a prefix cache that changes nothing, LoRA on and off, int8."""

import copy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
)

from assistant.latency import StageClock
from assistant.model import llm as llm_module
from assistant.model.llm import LLM, Message, load_llm
from assistant.model.prompt import Memory
from assistant.model.quantisation import Int8Linear, quantise
from assistant.model.weights import WeightsError
from tests.conftest import WIDTH

LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}


def reply(llm: LLM, *messages: Message, tokens: int = 12) -> str:
    return "".join(llm.stream(llm.prompt(messages), StageClock(llm.device), tokens))


def logits(llm: LLM, *messages: Message) -> torch.Tensor:
    with torch.inference_mode():
        return llm._prefill(llm.prompt(messages))[0]


def test_speech_stands_where_it_was_said(tiny_llm: LLM) -> None:
    one, two = torch.randn(3, WIDTH), torch.randn(2, WIDTH)
    messages = [
        Message("user", ["Say: ", one, " twice"]),
        Message("assistant", ["No"]),
        Message("user", [two, "!"]),
    ]
    prompt = tiny_llm.prompt(messages)
    assert prompt.speech.sum() == 5
    embedded = tiny_llm.embed(prompt)[0]
    assert torch.equal(embedded[prompt.speech], torch.cat([one, two]))
    text = tiny_llm.tokenizer.decode(prompt.ids[~prompt.speech])
    assert text == "<user>Say:  twice</s><assistant>No</s><user>!</s><assistant>"
    first = int(prompt.speech.long().argmax())
    assert tiny_llm.tokenizer.decode(prompt.ids[:first]) == "<user>Say: "


def test_vectors_of_text_are_the_text(tiny_llm: LLM) -> None:
    """Both lanes put the same thing to the LLM when the connector reads perfectly."""
    words = tiny_llm.tokenizer("hello", add_special_tokens=False, return_tensors="pt").input_ids[0]
    vectors = tiny_llm.embeddings[words].detach()
    heard, read = Message("user", ["Repeat: ", vectors]), Message("user", ["Repeat: ", "hello"])
    assert torch.allclose(logits(tiny_llm, heard), logits(tiny_llm, read), atol=1e-4)


def test_the_prefix_cache_changes_nothing(tiny_llm: LLM) -> None:
    message = Message("user", ["What time is it?"])
    with torch.inference_mode():
        plain = tiny_llm.model(input_ids=tiny_llm.prompt([message]).ids[None]).logits[0, -1]
    for _ in range(2):  # the second time the prefix is there already
        assert torch.allclose(logits(tiny_llm, message), plain, atol=1e-4)
    assert tiny_llm.tokenizer.decode(tiny_llm._prefix().read.ids) == "<user>"


def test_streaming_gives_what_generate_gives(tiny_llm: LLM) -> None:
    prompt = tiny_llm.prompt([Message("user", ["Tell me"])])
    expected = tiny_llm.model.generate(prompt.ids[None], max_new_tokens=20, do_sample=False)[0, len(prompt.ids) :]
    assert reply(tiny_llm, Message("user", ["Tell me"]), tokens=20) == tiny_llm.tokenizer.decode(
        expected, skip_special_tokens=True
    ).rstrip("\ufffd")


def test_half_a_character_is_never_shown(tiny_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = iter(tiny_llm.tokenizer("你好", add_special_tokens=False).input_ids)
    end = tiny_llm.tokenizer.eos_token_id
    monkeypatch.setattr(torch.Tensor, "argmax", lambda self, *_: torch.tensor(next(wanted, end)))
    clock = StageClock(tiny_llm.device)
    pieces = list(tiny_llm.stream(tiny_llm.prompt([Message("user", ["?"])]), clock, 20))
    assert pieces == ["你", "好"]
    assert clock.finish(1.0).reply_tokens == 6


def test_lora_is_on_for_speech_and_leaves_no_trace_on_text(tiny_llm: LLM) -> None:
    message = Message("user", ["Hello there"])
    before = logits(tiny_llm, message)
    torch.manual_seed(3)
    tiny_llm.add_lora(LORA)
    assert torch.equal(logits(tiny_llm, message), before)
    with tiny_llm.lora():
        tuned = logits(tiny_llm, message)
    assert not torch.allclose(tuned, before, atol=1e-3)
    assert torch.equal(logits(tiny_llm, message), before)


def test_int8_is_close_and_keeps_lora_exact(tiny_llm: LLM) -> None:
    torch.manual_seed(3)
    tiny_llm.add_lora(LORA)
    message = Message("user", ["Hello there"])
    with tiny_llm.lora():
        exact = logits(tiny_llm, message)
    quantise(tiny_llm.model)
    tiny_llm._prefixes.clear()
    with tiny_llm.lora():
        near = logits(tiny_llm, message)
    kinds = {type(m) for name, m in tiny_llm.model.named_modules() if "lora_A" in name and name.endswith("default")}
    assert kinds == {nn.Linear}
    assert torch.cosine_similarity(exact, near, dim=0) > 0.95


def test_int8_weights_are_within_half_a_step() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    x = torch.randn(5, 64)
    error = (Int8Linear.of(copy.deepcopy(linear))(x) - linear(x)).abs().max()
    assert error < 0.05
    assert error > 0  # it is really quantised


def test_int8_gives_every_row_its_own_scale() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(64, 32)
    x = torch.randn(5, 64) * torch.tensor([1e3, 1, 1, 1e-3, 0])[:, None]
    y = Int8Linear.of(copy.deepcopy(linear))(x)
    error = (y - linear(x)).abs().amax(1)
    assert (error < 0.05 * x.abs().amax(1) + 1e-6).all()


def test_a_model_without_a_chat_template_is_refused(tiny_llm_folder: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    for file in tiny_llm_folder.iterdir():
        if file.name != "chat_template.jinja":
            (plain / file.name).write_bytes(file.read_bytes())
    with pytest.raises(WeightsError, match="chat template"):
        load_llm(str(plain), "float32")


@pytest.mark.parametrize(
    "name, precision, words",
    [
        ("/no/such/model", "float32", "There is no /no/such/model. Give a folder"),
        ("nowhere.gguf", "float32", "There is no nowhere.gguf"),
        ("x", "int3", "Unknown precision"),
    ],
)
def test_what_cannot_be_loaded_is_said(name: str, precision: str, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        load_llm(name, precision)


FAMILIES = {
    "Llama": (LlamaConfig, {}),
    "Mistral": (MistralConfig, {"sliding_window": 8}),
    "Qwen 2": (Qwen2Config, {}),
    "Qwen 3": (Qwen3Config, {"head_dim": 8}),
    "Gemma": (GemmaConfig, {"head_dim": 8}),
    "Gemma 2": (Gemma2Config, {"head_dim": 8, "sliding_window": 8}),
    "Gemma 3": (Gemma3TextConfig, {"head_dim": 8, "sliding_window": 8}),
}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tiny_llm_folder: Path, tmp_path: Path) -> LLM:
    """A random LLM of two layers of each family, without a pad token and with two ends of a turn."""
    kind, more = FAMILIES[request.param]
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = kind(vocab_size=258, num_key_value_heads=2, eos_token_id=[1, 5], pad_token_id=None, **shape, **more)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    for file in tiny_llm_folder.glob("*token*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_bytes((tiny_llm_folder / "chat_template.jinja").read_bytes())
    return load_llm(str(tmp_path), "float32")


def test_vectors_of_text_are_the_text_in_every_family(family: LLM) -> None:
    """Soft tokens are what the LLM's embedding gives: Gemma's scales what it looks up."""
    (words,) = family.writer.spell(["hello"])
    vectors = family.writer.embed(torch.tensor(words)).detach()
    heard, read = Message("user", ["Say: ", vectors]), Message("user", ["Say: ", "hello"])
    assert torch.allclose(logits(family, heard), logits(family, read), atol=1e-4)
    with torch.inference_mode():
        whole = family.model(input_ids=family.prompt([read]).ids[None]).logits[0, -1]
    assert torch.allclose(logits(family, read), whole, atol=1e-4)
    assert {1, 5} <= family.end_tokens


def test_a_conversation_is_gone_on_with_in_every_family(family: LLM) -> None:
    """What is remembered can go back, be it longer than the window of some layers."""
    memory, clock = Memory(), StageClock(family.device)
    first = [Message("user", ["What is the time, please?"])]
    for turns in (first, [*first, Message("assistant", ["Late."]), Message("user", ["And now?"])], first):
        prompt = family.prompt(turns)
        remembered = "".join(family.stream(prompt, clock, 8, memory))
        assert remembered == "".join(family.stream(prompt, clock, 8))


def test_what_stands_before_all_else(tiny_llm: LLM) -> None:
    tiny_llm.system = "Be brief."
    prompt = tiny_llm.prompt([Message("user", ["Hi"])])
    assert tiny_llm.tokenizer.decode(prompt.ids) == "<system>Be brief.</s><user>Hi</s><assistant>"
    assert tiny_llm.tokenizer.decode(tiny_llm._prefix().read.ids) == "<system>Be brief.</s><user>"


def test_an_encoder_decoder_is_refused_in_words(tmp_path: Path) -> None:
    T5Config(d_model=16, num_layers=1).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match=r"encoder-decoder model \(t5\).*made for chat"):
        load_llm(str(tmp_path), "float32")


def test_what_does_not_fit_into_memory_is_refused_before_it_is_loaded(
    tiny_llm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llm_module.psutil, "virtual_memory", lambda: SimpleNamespace(available=1000))
    with pytest.raises(WeightsError, match=r"GiB of memory in float32.*smaller LLM"):
        load_llm(str(tiny_llm_folder), "float32")


def test_a_damaged_folder_is_refused_in_words(tiny_llm_folder: Path, tmp_path: Path) -> None:
    for file in tiny_llm_folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:4000])
    with pytest.raises(WeightsError, match="cannot be loaded"):
        load_llm(str(tmp_path), "float32")


def test_a_gguf_file_that_is_none_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "model.gguf").write_bytes(b"GGUF but not really")
    with pytest.raises(WeightsError, match=r"model\.gguf cannot be converted"):
        load_llm(str(tmp_path / "model.gguf"), "float32")
