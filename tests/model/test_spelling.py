"""Words as LLMs write them: families of tokenizers, pieces that become the LLM's own tokens, and the cache."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from assistant.model.heads import Speech
from assistant.model.speech_lm import reading
from assistant.model.spelling import PADDING, Writer, respelt
from assistant.model.weights import llm_source

LINES = [
    "the neighbourhood was perplexed, and the neighbours were too",
    "in the year 1984 there were 23 houses in the neighbourhood",
    "what is the capital of france? the capital of france is paris.",
    "do not sing; the king is ill, isn't he",
] * 4
WORDS = (" the", " neighb", "our", "hood", "'", "ing", " ", " perplexed", "'s", " Paris", " 1984", "1")
GPT2 = Regex(r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
QWEN = Regex(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def byte_level(split: Regex, digits: bool = False) -> Tokenizer:
    """Byte pairs after a split, as GPT-2, Qwen, Llama 3 (another split) and SmolLM (digits by themselves) have them."""
    tokenizer = Tokenizer(models.BPE())
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [*steps, pre_tokenizers.Split(split, "isolated"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    learn(tokenizer, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def sentence_piece(mark_in_front: bool) -> Tokenizer:
    """Byte pairs of SentencePiece: with a mark in front of all that begins (Llama 2, Mistral), or without (Gemma)."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    steps = [normalizers.Prepend("▁")] if mark_in_front else []
    tokenizer.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    # Training needs words; the finished tokenizer sees whole texts, as those do.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁?[^▁]+|▁"), "isolated")
    ends = [decoders.Strip(" ", 1, 0)] if mark_in_front else []
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *ends])
    learn(tokenizer, special_tokens=["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))])
    tokenizer.pre_tokenizer = None
    return tokenizer


def metaspace() -> Tokenizer:
    """The newer form of the same: a mark in front of the first word only."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first", split=False), decoders.Fuse()]
    )
    learn(tokenizer, special_tokens=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def learn(tokenizer: Tokenizer, **settings: object) -> None:
    tokenizer.train_from_iterator(LINES, trainers.BpeTrainer(vocab_size=420, show_progress=False, **settings))


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "GPT-2": lambda: byte_level(GPT2),
    "Qwen": lambda: byte_level(QWEN),
    "SmolLM": lambda: byte_level(GPT2, digits=True),
    "Llama 2": lambda: sentence_piece(mark_in_front=True),
    "Gemma": lambda: sentence_piece(mark_in_front=False),
    "Llama, new": metaspace,
}


def writer_of(tokenizer: PreTrainedTokenizerBase, width: int = 4) -> Writer:
    return Writer(tokenizer, torch.nn.Embedding(len(tokenizer), width))


@pytest.fixture(scope="module", params=FAMILIES)
def writer(request: pytest.FixtureRequest) -> Writer:
    return writer_of(PreTrainedTokenizerFast(tokenizer_object=FAMILIES[request.param]()))


def test_words_are_spelt_as_they_stand_within_a_text(writer: Writer) -> None:
    """No space but the word's own, whatever the tokenizer writes in front of what begins."""
    tokenizer = writer.tokenizer
    for word, tokens in zip(WORDS, writer.spell(WORDS), strict=True):
        before = tokenizer("x", add_special_tokens=False).input_ids
        assert tokenizer.decode([*before, *tokens]) == f"x{word}"
    sentence = " the capital of france is paris"
    spelt = [token for word in sentence.split() for token in writer.spell([f" {word}"])[0]]
    whole = tokenizer(f"\n{sentence}", add_special_tokens=False).input_ids
    assert spelt == whole[len(whole) - len(spelt) :]


def test_pieces_become_the_llm_s_own_tokens_in_every_family(writer: Writer) -> None:
    words = (" the", " neighb", "our", "hood", " was")
    rows = writer.spell(words)
    vectors = [torch.full((len(row), 4), float(number)) for number, row in enumerate(rows)]
    spelt = respelt(writer, words, rows, vectors)
    own = writer.spell([" the", " neighbourhood", " was"])
    assert [len(part) for part in spelt] == [len(row) for row in own]
    assert torch.equal(spelt[0], vectors[0]) and torch.equal(spelt[2], vectors[4])
    kept = 0
    for vector, token in zip(spelt[1], own[1], strict=True):
        if not torch.equal(vector, writer.embed(torch.tensor(token))):  # read as such, not put together
            assert any(token in row and torch.equal(vector, known[0]) for row, known in zip(rows, vectors, strict=True))
            kept += 1
    assert kept < len(own[1])


def test_spellings_come_from_the_cache_of_the_same_tokenizer_and_words_alone(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path))
    table = writer.spellings(WORDS)
    assert [[token for token in row if token != PADDING] for row in table.tolist()] == writer.spell(WORDS)
    (kept,) = (tmp_path / "spellings").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(Writer, "spell", lambda *_: pytest.fail("spelt again"))
        assert torch.equal(writer_of(writer.tokenizer).spellings(WORDS), table)
    assert len(writer.spellings(WORDS[1:])) == len(WORDS) - 1
    kept.write_bytes(b"half a file")
    assert torch.equal(writer.spellings(WORDS), table)
    writer.tokenizer.add_tokens(["<another>"])
    before = len(list((tmp_path / "spellings").iterdir()))
    writer.spellings(WORDS)
    assert len(list((tmp_path / "spellings").iterdir())) == before + 1


def test_a_cache_that_cannot_be_written_costs_time_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "file"))
    writer = writer_of(PreTrainedTokenizerFast(tokenizer_object=byte_level(GPT2)))
    assert len(writer.spellings(WORDS)) == len(WORDS)


# The real tokenizer ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def qwen() -> Writer:
    tokenizer = AutoTokenizer.from_pretrained(llm_source("qwen2.5-coder-0.5b-instruct"))
    return writer_of(tokenizer)


@pytest.mark.weights
def test_what_was_read_as_a_token_keeps_its_vector(qwen: Writer) -> None:
    words = (" the", " neighb", "our", "hood", " was", " per", "plex", "ed")
    rows = qwen.spell(words)
    vectors = [torch.randn(len(row), 4) for row in rows]
    the, neighbourhood, was, perplexed = respelt(qwen, words, rows, vectors)
    assert torch.equal(the, vectors[0]) and torch.equal(was, vectors[4])
    (own,) = qwen.spell([" neighbourhood"])
    assert len(own) == 1 and torch.equal(neighbourhood, qwen.embed(torch.tensor(own)))
    names = qwen.tokenizer.convert_ids_to_tokens(qwen.spell([" perplexed"])[0])
    assert names[-1] == "ed" and torch.equal(perplexed[-1], vectors[7][0])


@pytest.mark.weights
def test_what_is_spelt_well_stays(qwen: Writer) -> None:
    words = (" the", " neighbourhood", "s")
    rows = [qwen.spell([" the"])[0], qwen.spell([" neighbourhoods"])[0][:1], qwen.spell(["s"])[0]]
    vectors = [torch.randn(len(row), 4) for row in rows]
    assert torch.equal(torch.cat(respelt(qwen, words, rows, vectors)), torch.cat(vectors))


def test_a_word_is_as_sure_as_its_least_sure_piece() -> None:
    read = Speech(None, ("the", " neighb", "our", "hood", " ", "was"), torch.tensor([0.9, 0.8, 0.7, 0.6, 0.4, 0.5]))
    text, sure = reading(read)
    assert text == "the neighbourhood was"
    assert sure == pytest.approx((0.9, 0.6, 0.4))
    assert reading(Speech(None, (), torch.empty(0))) == ("", ())
    assert reading(Speech(torch.randn(3, 4))) == (None, None)
