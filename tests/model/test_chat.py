"""Chat templates of every kind: without a system turn, with thoughts, with an end of the turn that no file names."""

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from assistant.model.chat import Spoken, fill, spoken, turn_end
from tests.conftest import TEMPLATE

GEMMA = (
    "{{ '<bos>' }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\n' + "
    "message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
# Drops a system turn in silence.
DEAF = "{% for message in messages if message.role != 'system' %}[{{ message.content }}]{% endfor %}"
QWEN_3 = TEMPLATE + (
    "{% if add_generation_prompt and enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}"
)
ALWAYS = TEMPLATE + "{% if add_generation_prompt %}{{ '<think>\n' }}{% endif %}"  # DeepSeek R1
TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def tokenizer(tiny_llm_folder) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(tiny_llm_folder)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (TEMPLATE, "<system>Be brief.</s><user>Hello</s><assistant>"),
        (GEMMA, "<bos><start_of_turn>user\nBe brief.\n\nHello<end_of_turn>\n<start_of_turn>model\n"),
        (DEAF, "[Be brief.\n\nHello]"),
        (QWEN_3, "<system>Be brief.</s><user>Hello</s><assistant><think>\n\n</think>\n\n"),
        (ALWAYS, "<system>Be brief.</s><user>Hello</s><assistant><think>\n\n</think>\n\n"),
    ],
    ids=["system", "no system", "deaf", "thoughts", "always thoughts"],
)
def test_what_the_llm_is_told_reaches_it_and_it_does_not_think(
    tokenizer: PreTrainedTokenizerBase, template: str, expected: str
) -> None:
    tokenizer.chat_template = template
    assert fill(tokenizer, TALK) == expected
    assert "<think>" not in fill(tokenizer, TALK, reply=False)


def test_the_turn_ends_where_the_template_ends_it(tokenizer: PreTrainedTokenizerBase) -> None:
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids("</s>")
    tokenizer.chat_template = GEMMA
    assert turn_end(tokenizer) is None  # no token of this tokenizer
    tokenizer.add_tokens([AddedToken("<end_of_turn>", special=True), AddedToken("<end", special=True)])
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids("<end_of_turn>")
    tokenizer.chat_template = DEAF
    assert turn_end(tokenizer) is None


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("Paris.", "Paris."),
        ("<think>\nFrance, so\n</think>\n\nParis.", "Paris."),
        ("\n<think></think>Paris <think> is.", "Paris <think> is."),
        ("  <b>Paris", "  <b>Paris"),
        ("<", "<"),
        ("<think>and on and on", ""),
        ("", ""),
    ],
)
def test_thoughts_are_neither_shown_nor_spoken(reply: str, said: str) -> None:
    assert spoken(reply) == said
    for size in (1, 2, 5):
        voice = Spoken()
        pieces = [voice.of(reply[start : start + size]) for start in range(0, len(reply), size)]
        assert "".join(pieces) + voice.rest() == said, size
