"""Pieces of a reply are, joined, what the tokenizer makes of the whole; and no piece costs more for those before it."""

import random

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from assistant.model.detokeniser import Detokeniser
from assistant.model.llm import LLM

TEXTS = ["It is half past ten.", " it  is", "你好, wörld 👂🏽!", "a \n\n b", "", " ", "👂", "   three"]


def sentence_piece() -> PreTrainedTokenizerFast:
    """Llama's and Mistral's manner: `▁` begins a word, unknown characters are spelt in bytes."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefhilnoprstIt.", "▁i"]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: index for index, piece in enumerate(pieces)}, [("▁", "i")], unk_token="<unk>", byte_fallback=True
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def pieces(tokenizer: PreTrainedTokenizerBase, tokens: list[int]) -> list[str]:
    text = Detokeniser(tokenizer)
    return [text.add(token) for token in tokens]


@pytest.mark.parametrize("manner", ["bytes", "sentence_piece"])
def test_pieces_are_the_whole(tiny_llm: LLM, manner: str) -> None:
    tokenizer = tiny_llm.tokenizer if manner == "bytes" else sentence_piece()
    for text in TEXTS:
        tokens = tokenizer(text, add_special_tokens=False).input_ids
        whole = tokenizer.decode(tokens)
        assert whole.strip() == text.strip()
        assert "".join(pieces(tokenizer, tokens)) == whole
        special = [tokenizer.eos_token_id, *tokens, tokenizer.eos_token_id]
        assert "".join(pieces(tokenizer, special)) == tokenizer.decode(special, skip_special_tokens=True)


def test_any_tokens_give_what_decoding_them_at_once_gives(tiny_llm: LLM) -> None:
    """Random bytes too: what was no character is shown as soon as a character follows."""
    rng, tokenizer = random.Random(0), tiny_llm.tokenizer
    for _ in range(50):
        tokens = [*(rng.randrange(len(tokenizer)) for _ in range(12)), *tokenizer("t").input_ids]
        assert "".join(pieces(tokenizer, tokens)) == tokenizer.decode(tokens, skip_special_tokens=True)


def test_half_a_character_is_held_back() -> None:
    tokenizer = sentence_piece()
    tokens = tokenizer("t👂t", add_special_tokens=False).input_ids
    assert pieces(tokenizer, tokens)[1:] == ["t", "", "", "", "👂", "t"]


@pytest.mark.weights
def test_the_real_tokenizer(real_tokenizer: PreTrainedTokenizerBase) -> None:
    for text in TEXTS:
        tokens = real_tokenizer(text).input_ids
        assert "".join(pieces(real_tokenizer, tokens)) == text


def test_a_long_reply_costs_no_more_a_token(tiny_llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    decode = tiny_llm.tokenizer.decode
    monkeypatch.setattr(tiny_llm.tokenizer, "decode", lambda ids, **_: decoded.append(len(ids)) or decode(ids))
    pieces(tiny_llm.tokenizer, tiny_llm.tokenizer("the quick brown fox " * 20).input_ids)
    assert len(decoded) > 400 and max(decoded) == 2


@pytest.fixture
def real_tokenizer() -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    from assistant.model.weights import llm_source

    return AutoTokenizer.from_pretrained(llm_source("qwen2.5-coder-0.5b-instruct"))
