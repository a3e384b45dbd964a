"""The connector: the same clip gives the same vectors alone and in any batch, and soft tokens are what CTC read."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from whisper.model import Whisper
from whisper.tokenizer import get_tokenizer

from assistant.model.checkpoint import (
    CheckpointConfig,
    CheckpointError,
    load_connector,
    read_config,
    read_connector,
    read_learnt,
    write_checkpoint,
)
from assistant.model.connector import Connector, ConnectorConfig, QFormerConnector, build_connector, pad_features
from assistant.model.heads import Speech
from assistant.model.llm import LLM
from assistant.model.speech_lm import load_speech_lm
from assistant.model.spelling import word_rows
from tests.conftest import WIDTH, tiny_connector, tiny_writer


def embedded(connector: Connector, letters: str) -> torch.Tensor:
    """The embeddings of tokens that are these letters."""
    return connector.vocabulary._writer.embed(torch.tensor(list(letters.encode())))


LENGTHS = [5, 16, 17, 100, 33, 250]


@pytest.fixture(scope="module")
def clips() -> list[torch.Tensor]:
    torch.manual_seed(2)
    return [torch.randn(length, 64) for length in LENGTHS]


def same(one: Speech, other: Speech) -> bool:
    return (
        one.words == other.words
        and one.vectors.shape == other.vectors.shape
        and torch.allclose(one.vectors, other.vectors, atol=1e-4)
    )


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
    assert speech.words == (" c", " c", " g", " a")
    assert torch.allclose(speech.vectors, embedded(connector, "ccga"), atol=1e-4)
    assert torch.allclose(speech.confidence, torch.ones(4), atol=1e-4)


def test_a_word_of_several_tokens_is_as_many_vectors() -> None:
    connector = build_connector(ConnectorConfig(64, layers=1), (" abc", " d", " ef"), tiny_writer())
    shares = torch.tensor([[0.0, 0.0, 1.0, 0.0], [0.1, 0.5, 0.1, 0.3]])  # blank and three words, at two steps
    logits = shares.clamp_min(1e-9).log()
    speech = connector.head.read(torch.zeros(2, 64), logits)
    assert speech.words == (" d", " abc") and speech.confidence is not None
    assert speech.confidence.tolist() == pytest.approx([1.0, 0.5])
    a, b, c, d, e, f = embedded(connector, "abcdef")
    first = (5 * a + d + 3 * e) / 9
    second = (5 * b + 3 * f) / 8  # the second word has no second token
    expected = torch.stack([d, first, second, c])
    torch.testing.assert_close(speech.vectors, expected, rtol=1e-3, atol=1e-4)


def test_an_uncertain_token_is_a_mixture() -> None:
    connector = tiny_connector("vocabulary")
    assert isinstance(connector, QFormerConnector)
    logits = torch.full((1, 21), -20.0)
    logits[0, [1, 2]] = torch.tensor([0.6, 0.3]).log()
    logits[0, 0] = torch.tensor(0.1).log()
    a, b = embedded(connector, "ab")
    expected = 2 / 3 * a + 1 / 3 * b
    speech = connector.head.read(torch.zeros(len(logits), 64), logits)
    assert torch.allclose(speech.vectors[0], expected, atol=1e-4)
    assert speech.confidence.item() == pytest.approx(0.6, abs=1e-3)


def test_blanks_alone_are_no_speech() -> None:
    connector = tiny_connector("vocabulary")
    assert isinstance(connector, QFormerConnector)
    logits = torch.full((6, 21), -20.0)
    logits[:, 0] = 20.0
    speech = connector.head.read(torch.zeros(len(logits), 64), logits)
    assert speech.vectors.shape == (0, WIDTH) and speech.words == ()


def test_the_residual_hears_no_length_of_a_state_which_would_drown_the_words() -> None:
    connector = tiny_connector("residual")
    states, logits = torch.randn(6, connector.config.encoder_width), torch.randn(6, len(connector.words) + 1)
    torch.testing.assert_close(
        connector.head.read(states, logits).vectors, connector.head.read(200 * states, logits).vectors
    )


def test_the_residual_adds_nothing_until_it_has_learnt_something(clips: list[torch.Tensor]) -> None:
    with_residual, without = tiny_connector("residual"), tiny_connector("vocabulary")
    torch.nn.init.zeros_(with_residual.head.residual.weight)
    without.load_state_dict(
        {name: value for name, value in with_residual.state_dict().items() if "residual" not in name}
    )
    without.head._writer = with_residual.head._writer
    plain = without(*pad_features(clips))
    for one, two in zip(with_residual(*pad_features(clips)), plain, strict=True):
        assert same(one, two)
    torch.nn.init.normal_(with_residual.head.residual.weight)
    for one, two in zip(with_residual(*pad_features(clips)), plain, strict=True):
        assert one.words == two.words
        assert not one.words or not torch.allclose(one.vectors, two.vectors, atol=1e-2)


def test_gradients_reach_every_parameter(clips: list[torch.Tensor]) -> None:
    for kind in ("linear", "linear_adaptor", "vocabulary", "residual"):
        connector = tiny_connector(kind).requires_grad_(True)
        sum(speech.vectors.sum() for speech in connector(*pad_features(clips))).backward()
        assert [name for name, p in connector.named_parameters() if p.grad is None] == [], kind


def test_a_checkpoint_keeps_what_was_learnt_and_makes_the_rest(
    tmp_path, connector: Connector, tiny_whisper: Whisper, tiny_whisper_folder
) -> None:
    config = CheckpointConfig.of(connector.config, str(tiny_whisper_folder), "tiny-llm")
    write_checkpoint(tmp_path, config, connector.learnt(), connector.words)
    assert read_config(tmp_path) == config
    assert config.llm == ("tiny-llm" if connector.config.linear else None)
    restored = read_connector(tmp_path, config, tiny_writer())
    assert restored.words == connector.words
    for name, value in connector.learnt().items():
        assert torch.equal(restored.state_dict()[name], value.half().to(value.dtype)), name
    if connector.vocabulary:
        assert "head.matrix.weight" not in load_file(tmp_path / "connector.safetensors")
        rows = word_rows(tiny_whisper.decoder.token_embedding.weight, connector.words)
        error = (restored.state_dict()["head.matrix.weight"] - rows).abs()  # float16 in the file, then a byte each
        assert (error <= 0.6 / 127 * rows.abs().amax(1, keepdim=True)).all() and error.any()


def test_a_connector_answers_in_the_precision_of_the_llm(
    tmp_path, connector: Connector, clips, tiny_whisper_folder
) -> None:
    config = CheckpointConfig.of(connector.config, str(tiny_whisper_folder), "tiny-llm")
    write_checkpoint(tmp_path, config, connector.learnt(), connector.words)
    writer = tiny_writer()
    exact, whole = (load_connector(tmp_path, config, writer, None, name) for name in ("float32", "int8"))
    trained = read_connector(tmp_path, config, writer)
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


def test_one_connector_speaks_to_llms_of_any_width(tiny_checkpoint, clips: list[torch.Tensor]) -> None:
    config = read_config(tiny_checkpoint)
    connectors = [read_connector(tiny_checkpoint, config, tiny_writer(width)) for width in (WIDTH, 48)]
    for connector, width in zip(connectors, (WIDTH, 48), strict=True):
        speech = connector.vocabulary.read(torch.zeros(2, 64), torch.tensor([[0.0, 9], [9, 0]]) @ torch.eye(2, 21))
        assert speech.words == (" a",) and speech.vectors.shape == (1, width)


def test_what_belongs_to_one_llm_refuses_another(tmp_path, tiny_llm: LLM, tiny_whisper_folder) -> None:
    connector = tiny_connector("linear")
    config = CheckpointConfig.of(connector.config, str(tiny_whisper_folder), "the-llm-it-knows")
    write_checkpoint(tmp_path, config, connector.learnt())
    with pytest.raises(CheckpointError, match="linear projection of the-llm-it-knows and answers with that LLM alone"):
        load_speech_lm(tmp_path, llm=tiny_llm)
    lora = replace(config, connector=tiny_connector("vocabulary").config, lora={"r": 2})
    write_checkpoint(tmp_path, lora, connector.learnt())
    with pytest.raises(CheckpointError, match="LoRA weights of the-llm-it-knows"):
        load_speech_lm(tmp_path, llm=tiny_llm)


ODD = (" ", " the", "ing", "  two", "a b", "line\nend\r", "\\n", "▁the", "\\u0041", "今", "\u2028", "\x00\t", "🦞", " ")


def test_words_survive_as_lines_of_text(tmp_path) -> None:
    config = CheckpointConfig(ConnectorConfig(64), "whisper-tiny")
    write_checkpoint(tmp_path, config, {}, ODD)
    text = (tmp_path / "words.txt").read_bytes()
    assert text.decode().splitlines()[1:3] == ["▁the", "ing"]
    assert b" " not in text and text.count(b"\n") == len(ODD)
    for mangled in (text, text.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + text, text + b"\n\n", text.rstrip(b"\n")):
        (tmp_path / "words.txt").write_bytes(mangled)
        assert read_learnt(tmp_path, config)[1] == ODD


def test_a_checkpoint_that_lost_its_words_is_named(tiny_checkpoint) -> None:
    (tiny_checkpoint / "words.txt").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be used.*words\.txt"):
        read_connector(tiny_checkpoint, read_config(tiny_checkpoint))


def test_a_checkpoint_of_the_form_before_says_how_it_is_converted(tiny_checkpoint) -> None:
    entries = json.loads((tiny_checkpoint / "config.json").read_text())
    entries["connector"]["words"] = 20
    (tiny_checkpoint / "config.json").write_text(json.dumps(entries))
    with pytest.raises(CheckpointError, match=rf"python -m train\.stages\.conversion {tiny_checkpoint} --out FOLDER"):
        read_config(tiny_checkpoint)


def test_rows_are_where_whisper_looks_for_a_word(tiny_whisper: Whisper) -> None:
    words = [" the", " egypt", " blouse", "ing"]  # one token of Whisper's; one as a name; several; a piece
    embeddings = tiny_whisper.decoder.token_embedding.weight
    encode = get_tokenizer(True).encoding.encode
    assert [len(encode(word)) for word in words] == [1, 2, 2, 1]
    expected = [encode(" the"), encode(" Egypt"), encode(" blouse"), encode("ing")]
    assert list(map(len, expected)) == [1, 1, 2, 1]
    for _ in range(2):  # the second time from the cache
        for row, tokens in zip(word_rows(embeddings, words), expected, strict=True):
            torch.testing.assert_close(row, embeddings[tokens].sum(0) / len(tokens) ** 0.5)


def test_damaged_checkpoints_are_refused_in_words(tiny_checkpoint, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_config(tmp_path / "nothing")
    config = read_config(tiny_checkpoint)
    wrong = replace(config, connector=replace(config.connector, layers=2))
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_connector(tiny_checkpoint, wrong)
    (tiny_checkpoint / "connector.safetensors").write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="cannot be used"):
        read_connector(tiny_checkpoint, config)
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
    with pytest.raises(ValueError, match="needs words to read"):
        build_connector(ConnectorConfig(64))


def test_a_linear_path_needs_the_width_that_it_leads_to() -> None:
    for shape in ({"projection": "linear"}, {"kind": "linear_adaptor"}, {"residual": True}):
        with pytest.raises(ValueError, match="llm_width"):
            build_connector(ConnectorConfig(64, **shape), (" a",))
