"""Many prompts at once: the same replies as one after another, whatever they share the batch with."""

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from assistant.latency import StageClock
from assistant.model.completion import complete
from assistant.model.llm import LLM, Message, Prompt
from assistant.model.quantisation import quantise
from tests.conftest import WIDTH

TOKENS = 24


def prompts(llm: LLM, count: int) -> list[Prompt]:
    """Texts and speech of many lengths, among them some that begin alike."""
    rng = random.Random(5)
    torch.manual_seed(5)
    made = []
    for index in range(count):
        words = "".join(rng.choice("abcde fghij") for _ in range(rng.randrange(1, 40)))
        vectors = torch.randn(rng.randrange(1, 9), WIDTH)
        parts = [[f"Say: {words}"], [vectors, words], ["Say: ", vectors], [vectors]][index % 4]
        made.append(llm.prompt([Message("user", parts)]))
    return made


def alone(llm: LLM, prompt: Prompt) -> str:
    return "".join(llm.stream(prompt, StageClock(llm.device), TOKENS)).rstrip("\ufffd")


@pytest.fixture
def brief_llm(tiny_llm: LLM) -> LLM:
    """The random LLM, made to end most of its replies before the limit, each at another token."""
    torch.manual_seed(2)
    head = tiny_llm.model.get_output_embeddings()
    head.weight = torch.nn.Parameter(torch.randn_like(head.weight), requires_grad=False)
    head.weight[tiny_llm.tokenizer.eos_token_id] *= 2.5
    return tiny_llm


def test_replies_are_those_of_one_after_another(brief_llm: LLM) -> None:
    asked = prompts(brief_llm, 40)
    expected = [alone(brief_llm, prompt) for prompt in asked]
    for size in (1, 7, 20, 64):
        replies = complete(brief_llm, asked, TOKENS, size)
        assert [reply.text.rstrip("\ufffd") for reply in replies] == expected, size
    ended = [reply.ended for reply in replies]
    assert 10 < sum(ended) < 40  # both kinds are there
    assert len({reply.tokens for reply in replies}) > 5
    assert all(reply.ended == (reply.tokens < TOKENS) for reply in replies)


def test_no_row_is_computed_for_a_finished_reply(brief_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = prompts(brief_llm, 40)
    rows = []
    decoder = brief_llm.model.get_decoder()
    monkeypatch.setattr(decoder, "forward", _counting(decoder.forward, rows))
    replies = complete(brief_llm, asked, TOKENS, 24)
    assert 16 < max(rows) <= 24
    # Every step of a row reads one token of its reply; the last token before the limit need not be read.
    assert sum(rows) == sum(min(reply.tokens, TOKENS - 1) for reply in replies)
    assert len(rows) < 2 * TOKENS  # prompts move up before the longest replies are done


def _counting(forward: Callable[..., Any], rows: list[int]) -> Callable[..., Any]:
    def counted(*, inputs_embeds: torch.Tensor, **others: Any) -> Any:
        if others.get("attention_mask") is not None and inputs_embeds.shape[1] == 1:  # not the shared start
            rows.append(len(inputs_embeds))
        return forward(inputs_embeds=inputs_embeds, **others)

    return counted


def test_prompts_with_nothing_in_common_and_none_at_all(brief_llm: LLM) -> None:
    speech = [
        Prompt(torch.zeros(n, dtype=torch.long), torch.ones(n, dtype=torch.bool), torch.randn(n, WIDTH))
        for n in (1, 3, 6)
    ]
    together = complete(brief_llm, speech, TOKENS)
    assert together == [complete(brief_llm, [prompt], TOKENS)[0] for prompt in speech]
    assert complete(brief_llm, [], TOKENS) == []


def test_the_text_is_that_of_the_tokens_and_lora_counts(brief_llm: LLM) -> None:
    asked = prompts(brief_llm, 8)
    plain = complete(brief_llm, asked, TOKENS)
    torch.manual_seed(3)
    settings = {"r": 4, "lora_alpha": 64, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
    brief_llm.add_lora(settings)
    assert complete(brief_llm, asked, TOKENS) == plain
    with brief_llm.lora():
        tuned = complete(brief_llm, asked, TOKENS)
        assert [reply.text.rstrip("\ufffd") for reply in tuned] == [alone(brief_llm, prompt) for prompt in asked]
    assert tuned != plain


def test_int8_gives_the_same_replies_for_the_same_list(brief_llm: LLM) -> None:
    quantise(brief_llm.model)
    asked = prompts(brief_llm, 20)
    assert complete(brief_llm, asked, TOKENS) == complete(brief_llm, asked, TOKENS)
