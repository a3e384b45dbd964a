"""A connector that begins as Whisper's decoder: its layers, its words, and what stays as it is."""

import pytest
import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from assistant.model.connector import Connector, ConnectorConfig, QFormerConnector, build_connector
from assistant.model.weights import llm_source
from tests.conftest import WIDTH, tiny_connector
from train.stages.whisper_start import head_rows, learn, start_from_whisper

WORDS = [" the", " egypt", " blouse", "ing"]  # one token of Whisper's; one as a name; several; a piece


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(llm_source("qwen2.5-coder-0.5b-instruct"))


def spell(tokenizer: PreTrainedTokenizerBase, *words: str) -> torch.Tensor:
    return torch.tensor([tokenizer(word, add_special_tokens=False).input_ids for word in words])


def fresh(layers: int, spellings: torch.Tensor, projection: str = "vocabulary") -> Connector:
    shape = ConnectorConfig(64, WIDTH, layers=layers, words=len(spellings), projection=projection)  # type: ignore[arg-type]
    return build_connector(shape, None, spellings)


def test_rows_are_where_whisper_looks_for_a_word(tiny_whisper: Whisper) -> None:
    rows = head_rows(tiny_whisper, WORDS)
    encode, embeddings = get_tokenizer(True).encoding.encode, tiny_whisper.decoder.token_embedding.weight
    assert [len(encode(word)) for word in WORDS] == [1, 2, 2, 1]
    expected = [encode(" the"), encode(" Egypt"), encode(" blouse"), encode("ing")]
    assert list(map(len, expected)) == [1, 1, 2, 1]
    for row, tokens in zip(rows, expected, strict=True):
        torch.testing.assert_close(row, embeddings[tokens].sum(0) / len(tokens) ** 0.5)


def test_layers_begin_as_the_last_blocks(tiny_whisper: Whisper, tokenizer: PreTrainedTokenizerBase) -> None:
    words = spell(tokenizer, " the", " water")
    for projection in ("vocabulary", "linear"):
        connector = fresh(1, words, projection)
        start_from_whisper(connector, tiny_whisper, tokenizer)
        assert isinstance(connector, QFormerConnector)
        for name, value in tiny_whisper.decoder.blocks[1].state_dict().items():
            assert torch.equal(connector.layers[0].block.state_dict()[name], value), name
        assert torch.equal(connector.norm.weight, tiny_whisper.decoder.ln.weight)
    with pytest.raises(ValueError, match="3 layers cannot begin from a decoder of 2"):
        start_from_whisper(fresh(3, words), tiny_whisper, tokenizer)
    other = build_connector(ConnectorConfig(128, WIDTH, layers=1, projection="linear"))
    with pytest.raises(ValueError, match="width 128 are not those of a Whisper of width 64"):
        start_from_whisper(other, tiny_whisper, tokenizer)


def test_a_whole_decoder_in_one_window_is_whispers_own(
    tiny_whisper: Whisper, tokenizer: PreTrainedTokenizerBase
) -> None:
    """One query, one window that holds the clip, all blocks: the first step of Whisper's decoder, word for word."""
    shape = ConnectorConfig(64, WIDTH, layers=2, window=40, margin=0, queries=1, words=3)
    connector = build_connector(shape, None, spell(tokenizer, " the", " water", " door"))
    start_from_whisper(connector, tiny_whisper, tokenizer)
    frames = torch.randn(1, 40, 64)
    states, _ = connector.hidden(frames, torch.tensor([40]))
    logits = connector.head.logits(states)[0, 0, 1:]
    whisper = get_tokenizer(True)
    decoder = tiny_whisper.decoder
    before = decoder.token_embedding.weight[whisper.no_timestamps] + decoder.positional_embedding[3]
    hidden = before[None, None]
    for block in decoder.blocks:
        hidden = block(hidden, frames)
    expected = decoder.ln(hidden)[0, 0] @ decoder.token_embedding.weight.T
    words = [whisper.encoding.encode(word)[0] for word in (" the", " water", " door")]
    torch.testing.assert_close(logits, expected[words], rtol=1e-4, atol=1e-4)


def test_all_learns_but_the_rows_of_words() -> None:
    frozen = {"head.matrix.weight", "head.matrix.bias"}
    for kind, still in (("vocabulary", frozen), ("residual", frozen), ("linear", set()), ("linear_adaptor", set())):
        connector = tiny_connector(kind)
        learn(connector)
        assert {name for name, p in connector.named_parameters() if not p.requires_grad} == still, kind
