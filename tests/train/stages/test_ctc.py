"""CTC on words: labels, losses, masking, the held-out sentences; a small model learns by heart."""

import itertools
from collections.abc import Sequence

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from assistant.model.connector import ConnectorConfig, QFormerConnector, build_connector, pad_features
from assistant.model.weights import llm_source
from train.data.manifest import held_out
from train.labels.labeller import Labeller
from train.stages.ctc import CtcModel, ctc

WIDTH = 64  # of the cached features
VERBS = ["open", "close", "clean", "paint"]
THINGS = ["door", "window", "kitchen", "garage", "gate", "fence"]
RARE = ["fizzbin", "quonk"]  # in no list of common words
SENTENCES = [f"{verb} the {thing}" for verb, thing in itertools.product(VERBS, THINGS)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word the sentences use."""
    words = dict.fromkeys(["<unk>", *VERBS, "the", *THINGS, "please", *RARE, *map(str, range(2000))])
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def connector_for(words: Sequence[str]) -> QFormerConnector:
    return build_connector(ConnectorConfig(WIDTH, layers=1), words)


# Labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_places_of_known_tokens() -> None:
    tokenizer = word_tokenizer()
    labeller = Labeller.from_texts(tokenizer, SENTENCES)
    assert set(labeller.words) == {f" {word}" for word in [*VERBS, "the", *THINGS]}
    labels = labeller("Open the GATE!")
    assert [labeller.words[place - 1] for place in labels] == [" open", " the", " gate"]
    assert min(labels) > 0  # 0 is the blank


def test_unknown_tokens_are_left_out() -> None:
    labeller = Labeller.from_texts(word_tokenizer(), ["open the door", "open the door", "open the gate"])
    assert len(labeller.words) == 2  # a repeated text counts once: only `open` and `the` come twice
    assert len(labeller("open the door")) == 2
    assert labeller("fence") == []
    assert Labeller.from_texts(word_tokenizer(), ["open the door"], ["fence"]).words == (" fence",)


def letter_tokenizer() -> PreTrainedTokenizerFast:
    """Byte pairs: letters first, then pieces, then words, as a vocabulary that was learnt is ordered."""
    names = ["Ġ", *"abcdefghijklmnopqrstuvwxyz", "in", "Ġw", "ow", "do", "or", "Ġd", "Ġwin", "dow", "Ġdo", "Ġwindow"]
    pairs = [("i", "n"), ("Ġ", "w"), ("o", "w"), ("d", "o"), ("o", "r"), ("Ġ", "d"), ("Ġw", "in"), ("d", "ow")]
    merges = [*pairs, ("Ġ", "do"), ("Ġwin", "dow")]
    tokenizer = Tokenizer(models.BPE({name: index for index, name in enumerate(names)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_a_word_heard_once_is_spelt_with_what_is_heard_oftener() -> None:
    tokenizer = letter_tokenizer()
    texts = ["win", "win win", "window", "do", "wob", "bod"]

    def spelt(labeller: Labeller, text: str) -> list[str]:
        return [labeller.words[place - 1] for place in labeller(text)]

    labeller = Labeller.from_texts(tokenizer, texts)
    assert spelt(labeller, "win window") == [" win", " win", "d", "o", "w"]
    assert spelt(labeller, "down") == [" ", "d", "o", "w"]  # never heard; neither is an `n` by itself
    assert spelt(Labeller.from_texts(tokenizer, [*texts, "a window"]), "window") == [" window"]
    assert spelt(Labeller.from_texts(tokenizer, texts, ["window"]), "window") == [" window"]


@pytest.mark.weights
def test_a_word_is_one_label_however_the_llm_writes_it() -> None:
    tokenizer = AutoTokenizer.from_pretrained(llm_source("qwen2.5-coder-0.5b-instruct"))
    words = ["the", "sojourn", "egypt", "don't", "may"]
    labeller = Labeller.from_texts(tokenizer, ["the sojourn"], words)
    assert set(labeller.words) == {" the", " sojourn", " Egypt", " don't", " may"}
    assert labeller("Don't! The SOJOURN (may) — Egypt") == [
        labeller.words.index(name) + 1 for name in (" don't", " the", " sojourn", " may", " Egypt")
    ]
    connector = connector_for(labeller.words)
    logits = torch.full((8, 6), -9.0)
    logits[range(8), [0, *labeller("the sojourn in egypt"), 0, *labeller("may may"), 0]] = 9.0
    read = connector.head.read(torch.zeros(len(logits), WIDTH), logits)
    assert read.words == (" the", " sojourn", " Egypt", " may")


@pytest.mark.weights
def test_a_chinese_character_is_a_label_and_the_llm_gets_its_own_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(llm_source("qwen2.5-coder-0.5b-instruct"))
    labeller = Labeller.from_texts(tokenizer, ["今天天气很好。", "今天 10 點，很好", "天气", "嗨"], ["call"])
    assert set(labeller.words) == {" call", *"今天气很好"}  # 嗨, 十 and 点 were heard once
    said = labeller("Call: 今天很好, 嗨!")
    assert [labeller.words[place - 1] for place in said] == [" call", *"今天很好"]
    connector = connector_for(labeller.words)
    logits = torch.full((6, 7), -9.0)
    logits[range(6), [*said, 0]] = 9.0
    assert connector.head.read(torch.zeros(len(logits), WIDTH), logits).words == (" call", *"今天很好")


# Validation -------------------------------------------------------------------------------------------------------


def unseen(count: int) -> list[str]:
    """Sentences of the same words that are kept for validation."""
    candidates = (f"{sentence} please {n}" for n, sentence in itertools.product(range(2000), SENTENCES))
    return list(itertools.islice(filter(held_out, candidates), count))


def test_a_sentence_is_held_out_however_it_is_written() -> None:
    for text in unseen(20):
        for variant in (text.upper(), f"{text.capitalize()}.", text.replace(" ", ", "), f"  {text}?!"):
            assert held_out(variant), variant


def test_one_sentence_in_a_hundred_is_held_out() -> None:
    texts = [f"{sentence} number {n} or {2 * n}" for n, sentence in itertools.product(range(200), SENTENCES)]
    assert 0.007 < sum(map(held_out, texts)) / len(texts) < 0.013


# The model --------------------------------------------------------------------------------------------------------


def test_labels_that_cannot_fit_or_are_empty_spoil_nothing() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 6, 5)
    loss = ctc(logits.requires_grad_(), torch.tensor([6, 2, 6]), [[1, 2], [1, 2, 3, 4], []])
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].any()
    assert not logits.grad[1].any()
    assert torch.isfinite(ctc(logits[:1], torch.tensor([6]), [[]]))


def test_losses_do_not_depend_on_padding() -> None:
    torch.manual_seed(0)
    model = CtcModel(connector_for((" a", " b", " c"))).eval()
    clip, labels = torch.randn(50, WIDTH), [1, 2]
    alone = model(*pad_features([clip]), [labels])
    padded = torch.cat([clip, torch.randn(41, WIDTH)])[None]
    torch.testing.assert_close(model(padded, torch.tensor([50]), [labels]), alone, rtol=1e-4, atol=1e-4)


def test_a_sample_of_the_words_teaches_what_all_of_them_would(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = CtcModel(connector_for([f" {number}" for number in range(400)]))
    torch.nn.init.normal_(model.connector.head.matrix.weight, std=0.1)
    features, lengths, labels = torch.randn(2, 60, WIDTH), torch.tensor([60, 45]), [[3, 7, 3], [399, 400]]

    def taught() -> tuple[torch.Tensor, torch.Tensor]:
        """The loss, and its gradient at the queries."""
        loss = model(features, lengths, labels)["loss"]
        return loss, torch.autograd.grad(loss, model.connector.query)[0].flatten()

    states, steps = model.connector.hidden(features, lengths)
    exact = ctc(model.connector.head.logits(states), steps, labels)
    loss, gradient = taught()
    torch.testing.assert_close(loss, exact)
    monkeypatch.setattr("train.stages.ctc.SAMPLE", 100)
    losses, gradients = zip(*(taught() for _ in range(30)), strict=True)
    assert len({loss.item() for loss in losses}) == 30
    torch.testing.assert_close(torch.stack(losses).mean(), exact, rtol=0.02, atol=0)
    assert torch.cosine_similarity(torch.stack(gradients).mean(0), gradient, 0) > 0.95


def test_the_most_frequent_words_are_never_left_to_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    connector = connector_for([f" {number}" for number in range(400)])
    features, lengths, labels = torch.randn(2, 60, WIDTH), torch.tensor([60, 45]), [[3, 7, 3], [399, 400]]
    often = connector.hidden(features, lengths)[0].mean((0, 1))  # what is often said is often what might have been said
    connector.head.matrix.weight.data[:40] += 3.0 * often / often.square().sum()
    monkeypatch.setattr("train.stages.ctc.SAMPLE", 100)

    def spread(model: CtcModel) -> float:
        return torch.stack([model(features, lengths, labels)["loss"] for _ in range(20)]).std().item()

    assert spread(CtcModel(connector, range(1, 41))) < 0.3 * spread(CtcModel(connector))


def test_silence_has_nothing_to_read_and_is_learnt_from() -> None:
    labels = Labeller.from_texts(word_tokenizer(), SENTENCES)("")
    assert labels == []
    assert not held_out("")
    losses = CtcModel(connector_for((" a", " b", " c")))(torch.randn(1, 50, WIDTH), torch.tensor([50]), [labels])
    losses["loss"].backward()
    assert torch.isfinite(losses["loss"]) and losses["loss"] > 0


def test_a_small_model_learns_four_utterances_by_heart() -> None:
    torch.manual_seed(1)
    tokenizer, texts = word_tokenizer(), ["open the door", "close the window", "clean the garage", "paint the fence"]
    labeller = Labeller.from_texts(tokenizer, texts, {word for text in texts for word in text.split()})
    model = CtcModel(connector_for(labeller.words))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    clips = [torch.randn(40 + 9 * n, WIDTH) for n in range(4)]
    features, lengths = pad_features(clips)
    losses = []
    for _ in range(150):
        step = model(features, lengths, [labeller(text) for text in texts])
        optimizer.zero_grad()
        step["loss"].backward()
        optimizer.step()
        losses.append(step["loss"].item())
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    assert ["".join(speech.words).strip() for speech in model.connector(features, lengths)] == texts
