"""The connector: the same clip gives the same vectors alone and in any batch, and soft tokens are what CTC read."""

from dataclasses import replace

import pytest
import torch

from assistant.model.checkpoint import (
    CheckpointConfig,
    CheckpointError,
    load_connector,
    read_config,
    read_connector,
    write_checkpoint,
)
from assistant.model.connector import Connector, ConnectorConfig, QFormerConnector, build_connector, pad_features
from assistant.model.heads import Speech
from tests.conftest import WIDTH, tiny_connector

LENGTHS = [5, 16, 17, 100, 33, 250]


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.randn(length, 64) for length in LENGTHS]


def same(one: Speech, other: Speech) -> bool:
    tokens = one.tokens is other.tokens is None or torch.equal(one.tokens, other.tokens)
    return tokens and one.vectors.shape == other.vectors.shape and torch.allclose(one.vectors, other.vectors, atol=1e-4)


def test_a_clip_alone_and_in_any_batch_gives_the_same(connector: Connector, clips: list[torch.Tensor]) -> None:
    alone = [connector(*pad_features([clip]))[0] for clip in clips]
    together = connector(*pad_features(clips))
    backwards = connector(*pad_features(clips[::-1]))[::-1]
    for one, two, three in zip(alone, together, backwards, strict=True):
        assert same(one, two) and same(one, three)
        assert one.vectors.shape[1] == WIDTH


def test_what_stands_in_the_padding_does_not_matter(connector: Connector, clips: list[torch.Tensor]) -> None:
    features, lengths = pad_features(clips)
    noisy = features.clone()
    for row, length in enumerate(lengths.tolist()):
        noisy[row, length:] = 100.0
    for one, two in zip(connector(features, lengths), connector(noisy, lengths), strict=True):
        assert same(one, two)


def test_the_rate_is_three_vectors_for_sixteen_frames(clips: list[torch.Tensor]) -> None:
    vectors = tiny_connector("linear")(*pad_features(clips))
    assert [len(speech.vectors) for speech in vectors] == [3 * -(-length // 16) for length in LENGTHS]


def test_soft_tokens_follow_greedy_ctc() -> None:
    connector = tiny_connector("vocabulary")
    assert isinstance(connector, QFormerConnector)
    path = [0, 3, 3, 0, 3, 7, 7, 0, 0, 1]  # head indices; 0 is the blank
    logits = torch.full((len(path), 21), -20.0)
    logits[range(len(path)), path] = 20.0
    speech = connector.head.read(torch.zeros(len(logits), 64), logits)
    assert speech.tokens.tolist() == [102, 102, 106, 100]
    assert connector.head._embeddings is not None
    assert torch.allclose(speech.vectors, connector.head._embeddings[0][speech.tokens], atol=1e-4)
    assert torch.allclose(speech.confidence, torch.ones(4), atol=1e-4)


def test_a_word_of_several_tokens_is_as_many_vectors() -> None:
    embeddings = torch.randn(9, WIDTH)
    spellings = torch.tensor([[1, 2, 3], [4, -1, -1], [5, 6, -1]])
    connector = build_connector(ConnectorConfig(64, WIDTH, layers=1, words=3), embeddings, spellings)
    shares = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.1, 0.5, 0.1, 0.3]])  # blank and three words, at two steps
    logits = shares.clamp_min(1e-9).log()
    speech = connector.head.read(torch.zeros(2, 64), logits)
    assert speech.tokens is not None and speech.confidence is not None
    assert speech.tokens.tolist() == [4, 1, 2, 3]
    assert speech.confidence.tolist() == pytest.approx([1.0, 0.5, 0.5, 0.5])
    first = (5 * embeddings[1] + embeddings[4] + 3 * embeddings[5]) / 9
    second = (5 * embeddings[2] + 3 * embeddings[6]) / 8  # the second word has no second token
    expected = torch.stack([embeddings[4], first, second, embeddings[3]])
    torch.testing.assert_close(speech.vectors, expected, rtol=1e-3, atol=1e-4)


def test_an_uncertain_token_is_a_mixture() -> None:
    connector = tiny_connector("vocabulary")
    assert isinstance(connector, QFormerConnector) and connector.head._embeddings is not None
    logits = torch.full((1, 21), -20.0)
    logits[0, [1, 2]] = torch.tensor([0.6, 0.3]).log()
    logits[0, 0] = torch.tensor(0.1).log()
    expected = 2 / 3 * connector.head._embeddings[0][100] + 1 / 3 * connector.head._embeddings[0][101]
    speech = connector.head.read(torch.zeros(len(logits), 64), logits)
    assert torch.allclose(speech.vectors[0], expected, atol=1e-4)
    assert speech.confidence.item() == pytest.approx(0.6, abs=1e-3)


def test_blanks_alone_are_no_speech() -> None:
    connector = tiny_connector("vocabulary")
    assert isinstance(connector, QFormerConnector)
    logits = torch.full((6, 21), -20.0)
    logits[:, 0] = 20.0
    speech = connector.head.read(torch.zeros(len(logits), 64), logits)
    assert speech.vectors.shape == (0, WIDTH) and len(speech.tokens) == 0


def test_the_residual_hears_no_length_of_a_state_which_would_drown_the_words() -> None:
    connector = tiny_connector("residual")
    states, logits = torch.randn(6, connector.config.encoder_width), torch.randn(6, connector.config.words + 1)
    torch.testing.assert_close(
        connector.head.read(states, logits).vectors, connector.head.read(200 * states, logits).vectors
    )


def test_the_residual_adds_nothing_until_it_has_learnt_something(clips: list[torch.Tensor]) -> None:
    with_residual, without = tiny_connector("residual"), tiny_connector("vocabulary")
    torch.nn.init.zeros_(with_residual.head.residual.weight)
    without.load_state_dict(
        {name: value for name, value in with_residual.state_dict().items() if "residual" not in name}
    )
    without.head._embeddings = with_residual.head._embeddings
    plain = without(*pad_features(clips))
    for one, two in zip(with_residual(*pad_features(clips)), plain, strict=True):
        assert same(one, two)
    torch.nn.init.normal_(with_residual.head.residual.weight)
    for one, two in zip(with_residual(*pad_features(clips)), plain, strict=True):
        assert torch.equal(one.tokens, two.tokens)
        assert len(one.tokens) == 0 or not torch.allclose(one.vectors, two.vectors, atol=1e-2)


def test_gradients_reach_every_parameter(clips: list[torch.Tensor]) -> None:
    for kind in ("linear", "linear_adaptor", "vocabulary", "residual"):
        connector = tiny_connector(kind).requires_grad_(True)
        sum(speech.vectors.sum() for speech in connector(*pad_features(clips))).backward()
        assert [name for name, p in connector.named_parameters() if p.grad is None] == [], kind


def test_a_checkpoint_keeps_the_connector(tmp_path, connector: Connector, clips: list[torch.Tensor]) -> None:
    config = CheckpointConfig(connector.config, "whisper-tiny", "tiny-llm")
    write_checkpoint(tmp_path, config, connector)
    assert read_config(tmp_path) == config
    restored = read_connector(tmp_path, config, torch.randn(258, WIDTH))
    for name, value in connector.state_dict().items():
        read = restored.state_dict()[name]
        if name == "head.matrix.weight" and connector.vocabulary:  # a byte each: at most half a step off
            assert ((read - value).abs() <= 0.51 / 127 * value.abs().amax(1, keepdim=True)).all()
        else:
            assert torch.equal(read, value.half().to(value.dtype)), name


def test_a_connector_answers_in_the_precision_of_the_llm(tmp_path, connector: Connector, clips) -> None:
    config = CheckpointConfig(connector.config, "whisper-tiny", "tiny-llm")
    write_checkpoint(tmp_path, config, connector)
    embeddings = torch.randn(258, WIDTH)
    exact, whole = (load_connector(tmp_path, config, embeddings, name) for name in ("float32", "int8"))
    trained = read_connector(tmp_path, config, embeddings)
    for one, two in zip(exact(*pad_features(clips)), trained(*pad_features(clips)), strict=True):
        assert torch.equal(one.vectors, two.vectors)
    assert not [name for name, part in whole.named_modules() if isinstance(part, torch.nn.Linear)]
    near, far = (_projected(one, clips[3]) for one in (exact, whole))
    assert 0 < (near - far).norm() < 0.05 * near.norm()


def _projected(connector: Connector, clip: torch.Tensor) -> torch.Tensor:
    """What the last matrix makes of a clip: CTC logits, or vectors."""
    features, lengths = pad_features([clip])
    speech = connector(features, lengths)[0]
    return speech.vectors if speech.logits is None else speech.logits


def test_a_checkpoint_for_another_llm_is_refused_in_words(tiny_checkpoint) -> None:
    config = read_config(tiny_checkpoint)
    with pytest.raises(CheckpointError, match=rf"width {WIDTH}.*width 48"):
        read_connector(tiny_checkpoint, config, torch.randn(258, 48))


def test_damaged_checkpoints_are_refused_in_words(tiny_checkpoint, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_config(tmp_path / "nothing")
    config = read_config(tiny_checkpoint)
    wrong = replace(config, connector=replace(config.connector, layers=2))
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_connector(tiny_checkpoint, wrong, torch.randn(258, WIDTH))
    (tiny_checkpoint / "connector.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_connector(tiny_checkpoint, config, torch.randn(258, WIDTH))
    (tiny_checkpoint / "config.json").write_text('{"connector": 3}')
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_config(tiny_checkpoint)


def test_a_window_sees_its_margin_and_no_further() -> None:
    """One layer: a frame reaches the queries of its own window and of the one whose margin it is in."""
    connector = tiny_connector("linear")
    assert isinstance(connector, QFormerConnector)
    for layer in connector.layers:
        torch.nn.init.zeros_(layer.get_submodule("block.attn.out").weight)  # queries do not see each other
    frames, lengths = torch.randn(1, 64, 64), torch.tensor([64])
    before, _ = connector.hidden(frames, lengths)
    for frame, windows in ((32 + 8, [2, 3]), (32 + 7, [1, 2])):  # all of window 2, on either side of a margin's end
        other = frames.clone()
        other[0, frame] += 1
        same = torch.isclose(connector.hidden(other, lengths)[0], before, atol=1e-6)[0].view(4, -1).all(1)
        assert (~same).nonzero().flatten().tolist() == windows
    with pytest.raises(ValueError, match="margin of 17"):
        build_connector(replace(connector.config, margin=17))


def test_a_vocabulary_needs_its_words() -> None:
    with pytest.raises(ValueError, match="5 words needs as many spellings"):
        build_connector(ConnectorConfig(64, WIDTH, words=5), torch.randn(9, WIDTH), torch.arange(4)[:, None])
