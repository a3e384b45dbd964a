"""A connector that begins as Whisper's decoder: its layers, its words, and what stays as it is."""

from collections.abc import Sequence

import pytest
import torch
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from assistant.model.connector import Connector, ConnectorConfig, QFormerConnector, build_connector
from tests.conftest import WIDTH, tiny_connector
from train.stages.whisper_start import learn, start_from_whisper


def fresh(layers: int, words: Sequence[str], projection: str = "vocabulary") -> Connector:
    return build_connector(ConnectorConfig(64, WIDTH, layers=layers, projection=projection), words)  # type: ignore[arg-type]


def test_layers_begin_as_the_last_blocks(tiny_whisper: Whisper) -> None:
    words = (" the", " water")
    for projection in ("vocabulary", "linear"):
        connector = fresh(1, words, projection)
        start_from_whisper(connector, tiny_whisper)
        assert isinstance(connector, QFormerConnector)
        for name, value in tiny_whisper.decoder.blocks[1].state_dict().items():
            assert torch.equal(connector.layers[0].block.state_dict()[name], value), name
        assert torch.equal(connector.norm.weight, tiny_whisper.decoder.ln.weight)
    with pytest.raises(ValueError, match="3 layers cannot begin from a decoder of 2"):
        start_from_whisper(fresh(3, words), tiny_whisper)
    other = build_connector(ConnectorConfig(128, WIDTH, layers=1, projection="linear"))
    with pytest.raises(ValueError, match="width 128 are not those of a Whisper of width 64"):
        start_from_whisper(other, tiny_whisper)


def test_a_whole_decoder_in_one_window_is_whispers_own(tiny_whisper: Whisper) -> None:
    """One query, one window that holds the clip, all blocks: the first step of Whisper's decoder, word for word."""
    shape = ConnectorConfig(64, WIDTH, layers=2, window=40, margin=0, queries=1)
    connector = build_connector(shape, (" the", " water", " door"))
    start_from_whisper(connector, tiny_whisper)
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
    frozen = {"head.matrix.weight"}
    for kind, still in (("vocabulary", frozen), ("residual", frozen), ("linear", set()), ("linear_adaptor", set())):
        connector = tiny_connector(kind)
        learn(connector)
        assert {name for name, p in connector.named_parameters() if not p.requires_grad} == still, kind
