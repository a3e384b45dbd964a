"""The lean decoder gives what transformers gives, for every family; what it does not know it leaves alone."""

import copy
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

from assistant.latency import StageClock
from assistant.model.completion import complete
from assistant.model.decoder import Decoder, lean, new_cache
from assistant.model.llm import LLM, load_llm
from assistant.model.prompt import Memory, Message
from assistant.model.quantisation import Int8Linear, quantise
from tests.conftest import WIDTH

ROPE = {"rope_theta": 10_000.0, "factor": 4.0}
LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
FAMILIES: dict[str, tuple[type[PreTrainedConfig], dict[str, Any]]] = {
    "llama": (LlamaConfig, {}),
    "biases": (LlamaConfig, {"attention_bias": True, "mlp_bias": True}),
    "one head of keys": (LlamaConfig, {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "as many keys as queries": (LlamaConfig, {"num_key_value_heads": 4}),
    "linear rope": (LlamaConfig, {"rope_parameters": {"rope_type": "linear", **ROPE}}),
    "llama 3 rope": (LlamaConfig, {"rope_parameters": {"rope_type": "llama3", **ROPE, **LLAMA3}}),
    "dynamic rope": (LlamaConfig, {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", **ROPE}}),
    "yarn": (Qwen2Config, {"rope_parameters": {"rope_type": "yarn", **ROPE, "original_max_position_embeddings": 16}}),
    "qwen2": (Qwen2Config, {}),
    "qwen3": (Qwen3Config, {"head_dim": 16}),
    "mistral": (MistralConfig, {"sliding_window": None}),
}
LORA = {"r": 4, "lora_alpha": 8, "init_lora_weights": False}


def built(kind: type[PreTrainedConfig], **settings: Any) -> PreTrainedModel:
    """A random model in which no bias and no norm is left as it begins."""
    torch.manual_seed(0)
    shape = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = AutoModelForCausalLM.from_config(kind(vocab_size=99, **{"num_key_value_heads": 2, **shape, **settings}))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1), std=0.2)
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def logits(model: PreTrainedModel) -> torch.Tensor:
    """Of a prompt, one token, another, several at once, and one after going back, on one cache."""
    torch.manual_seed(1)
    cache, seen = new_cache(model), []
    for length in (7, 1, 1, 5, 1):
        ids = torch.randint(0, 99, (1, length))
        seen.append(model(input_ids=ids, past_key_values=cache, use_cache=True).logits)
    cache.crop(-6)
    for length in (1, 3):
        vectors = torch.randn(1, length, model.config.hidden_size)
        seen.append(model(inputs_embeds=vectors, past_key_values=cache, use_cache=True).logits)
    return torch.cat(seen, 1)


@pytest.mark.parametrize("name", FAMILIES)
def test_it_gives_what_transformers_gives(name: str) -> None:
    kind, settings = FAMILIES[name]
    model = built(kind, **settings)
    expected = logits(model)
    assert lean(model) and isinstance(model.get_decoder(), Decoder)
    assert torch.allclose(logits(model), expected, atol=1e-5)


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3"])
def test_int8_of_joined_projections_is_int8_of_each(name: str) -> None:
    """A row of a product does not depend on the others, so not even rounding differs."""
    kind, settings = FAMILIES[name]
    model = built(kind, **settings)
    plain = copy.deepcopy(model)
    quantise(plain)
    assert lean(model)
    quantise(model)
    assert sum(isinstance(module, Int8Linear) for module in model.modules()) == 2 * 4 + 1
    assert torch.equal(logits(model), logits(plain))


@pytest.mark.parametrize(
    "kind, settings",
    [
        (MistralConfig, {"sliding_window": 4}),
        (Qwen2Config, {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
        (LlamaConfig, {"hidden_act": "gelu"}),
        (MixtralConfig, {"num_local_experts": 2}),
        (Gemma2Config, {"head_dim": 8}),
    ],
)
def test_what_it_does_not_know_stays_as_it_is(kind: type[PreTrainedConfig], settings: dict[str, Any]) -> None:
    model = built(kind, **settings)
    before = type(model.get_decoder())
    assert not lean(model)
    assert type(model.get_decoder()) is before
    assert type(new_cache(model)) is DynamicCache
    assert logits_of_one(model).isfinite().all()


@torch.inference_mode()
def logits_of_one(model: PreTrainedModel) -> torch.Tensor:
    return model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=new_cache(model), use_cache=True).logits


@pytest.fixture
def pair(tiny_llm_folder: Any) -> tuple[LLM, LLM]:
    """The random chat LLM in float32 as transformers computes it, and as the lean decoder does; both with LoRA."""
    llms = [load_llm(str(tiny_llm_folder), "float32") for _ in range(2)]
    targets = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
    for llm in llms:
        torch.manual_seed(3)
        llm.add_lora({**LORA, "target_modules": targets})
    assert lean(llms[1].model)
    return llms[0], llms[1]


def replies(llm: LLM, lora: bool) -> list[str]:
    """Three turns of a conversation, of text and of vectors, on one memory."""
    torch.manual_seed(4)
    memory, said, given = Memory(), [], []
    for content in ("Hello there", torch.randn(5, WIDTH), "And then?"):
        said.append(Message("user", [content]))
        with llm.lora(lora):
            given.append("".join(llm.stream(llm.prompt(said), StageClock(llm.device), 6, memory)))
        said.append(Message("assistant", [given[-1]]))
    return given


def test_conversations_with_lora_on_and_off_are_the_same(pair: tuple[LLM, LLM]) -> None:
    spoken = []
    for lora in (False, True, False):
        theirs, ours = (replies(llm, lora) for llm in pair)
        assert ours == theirs
        spoken.append(ours)
    assert spoken[0] == spoken[2] != spoken[1]


def test_lora_is_exchanged_under_the_names_that_peft_gave(pair: tuple[LLM, LLM]) -> None:
    theirs, ours = pair
    state = {name: value + 0.3 for name, value in theirs.lora_state().items()}
    assert state.keys() == ours.lora_state().keys()
    before = replies(ours, lora=True)
    for llm in pair:
        llm.swap_lora(state)
    assert replies(ours, lora=True) == replies(theirs, lora=True) != before


def test_other_kinds_of_lora_stay_with_transformers(tiny_llm: LLM) -> None:
    tiny_llm.add_lora({**LORA, "target_modules": ["q_proj"], "use_dora": True})
    assert not lean(tiny_llm.model)


def test_many_prompts_at_once_are_the_same(pair: tuple[LLM, LLM]) -> None:
    torch.manual_seed(5)
    parts = [["Say: abc"], [torch.randn(4, WIDTH), "cde"], ["Say: ", torch.randn(7, WIDTH)], ["Say: abc and more"]]
    theirs, ours = (complete(llm, [llm.prompt([Message("user", part)]) for part in parts], 10) for llm in pair)
    assert ours == theirs


def test_a_cache_has_room_for_a_reply_and_copies_only_what_it_holds() -> None:
    model = built(LlamaConfig)
    lean(model)
    cache = new_cache(model)
    with torch.inference_mode():
        model(input_ids=torch.tensor([[1, 2, 3]]), past_key_values=cache)
        start = copy.deepcopy(cache)
        places = set()
        for token in range(60):
            model(input_ids=torch.tensor([[token]]), past_key_values=cache)
            places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 1  # written where there was room, not copied token by token
    assert cache.get_seq_length() == 63 and start.get_seq_length() == 3
    assert start.layers[0].keys.untyped_storage().nbytes() == start.layers[0].keys.nbytes
    assert torch.equal(cache.layers[0].keys[:, :, :3], start.layers[0].keys)
