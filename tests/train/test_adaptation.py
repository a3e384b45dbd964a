"""Stage 1: labels, batches and learning rate; killed and resumed is uninterrupted; a small model learns by heart."""

import itertools
import json
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from assistant.checkpoint import read_config, read_connector
from assistant.connector import ConnectorConfig, QFormerConnector, pad_features
from train import adaptation
from train.adaptation import CHARACTERS, AdaptationModel, Labeller, Labels, batches, ctc, held_out, learning_rate
from train.features import FeatureCache

ROOT = Path(adaptation.__file__).parent.parent
WIDTH = 32  # of the cached features
VERBS = ["open", "close", "clean", "paint"]
THINGS = ["door", "window", "kitchen", "garage", "gate", "fence"]
SENTENCES = [f"{verb} the {thing}" for verb, thing in itertools.product(VERBS, THINGS)]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def word_tokenizer() -> PreTrainedTokenizerFast:
    """One token for each word the sentences use."""
    words = dict.fromkeys(["<unk>", *VERBS, "the", *THINGS, "please", *map(str, range(2000))])
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def small_connector(tokens: list[int]) -> QFormerConnector:
    config = ConnectorConfig(WIDTH, 16, layers=1, context_layers=1, width=64, heads=2, tokens=len(tokens))
    return QFormerConnector(config, None, torch.tensor(tokens))


# Labels -----------------------------------------------------------------------------------------------------------


def test_labels_are_places_of_known_tokens_and_of_characters() -> None:
    tokenizer = word_tokenizer()
    labeller = Labeller(tokenizer, SENTENCES)
    assert labeller.token_ids == sorted(tokenizer.convert_tokens_to_ids([*VERBS, "the", *THINGS]))
    labels = labeller("Open the GATE!")
    read = [labeller.token_ids[place - 1] for place in labels.tokens]
    assert tokenizer.convert_ids_to_tokens(read) == ["open", "the", "gate"]
    assert "".join(CHARACTERS[place - 1] for place in labels.characters) == "open the gate"
    assert min(labels.tokens + labels.characters) > 0  # 0 is the blank


def test_unknown_tokens_are_left_out_and_still_spelt() -> None:
    labeller = Labeller(word_tokenizer(), ["open the door", "open the door", "open the gate"])
    assert len(labeller.token_ids) == 2  # a repeated text counts once: only `open` and `the` come twice
    assert len(labeller("open the door").tokens) == 2
    assert labeller("fence").tokens == []
    assert len(labeller("fence").characters) == 5
    assert len(Labeller(word_tokenizer(), ["open the door"], least=1).token_ids) == 3


# Batches ----------------------------------------------------------------------------------------------------------


LENGTHS = [int(n) for n in np.random.default_rng(0).integers(15, 700, 1500)]


def epochs(seed: int, count: int) -> list[list[list[int]]]:
    endless, found = batches(LENGTHS, seed), []
    for _ in range(count):
        epoch: list[list[int]] = []
        while sum(map(len, epoch)) < len(LENGTHS):
            epoch.append(next(endless))
        found.append(epoch)
    return found


def test_every_epoch_has_every_utterance_once_within_the_budget() -> None:
    for epoch in epochs(1, 3):
        assert sorted(index for batch in epoch for index in batch) == list(range(len(LENGTHS)))
        sizes = [max(LENGTHS[index] for index in batch) * len(batch) for batch in epoch]
        assert max(sizes) <= adaptation.FRAMES_PER_BATCH
        assert np.mean(sizes) > 0.8 * adaptation.FRAMES_PER_BATCH
        assert sum(LENGTHS) > 0.9 * sum(sizes)  # little padding


def test_an_utterance_beyond_the_budget_comes_alone() -> None:
    endless = batches([100, 5000, 100], 1)
    assert sorted(sorted(next(endless)) for _ in range(2)) == [[0, 2], [1]]


def test_order_is_decided_by_the_seed_and_changes_every_epoch() -> None:
    first, again, other = epochs(1, 2), epochs(1, 2), epochs(2, 2)
    assert first == again
    assert first != other
    assert first[0] != first[1]


# Learning rate ----------------------------------------------------------------------------------------------------


def test_learning_rate_warms_up_stays_and_falls() -> None:
    rates = [learning_rate(step, 6000, 1e-3) for step in range(6000)]
    assert rates[0] == pytest.approx(1e-3 / 200)
    assert rates[99] == pytest.approx(0.5e-3)
    assert set(rates[200:3900]) == {1e-3}
    assert rates[4950] == pytest.approx(0.5e-3)
    assert 0 < rates[-1] < 1e-6
    assert rates[3900:] == sorted(rates[3900:], reverse=True)


def test_learning_rate_before_the_fall_does_not_depend_on_the_number_of_steps() -> None:
    for step in range(0, 3900, 100):
        assert learning_rate(step, 6000, 1e-3) == learning_rate(step, 12_000, 1e-3)


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
    model = AdaptationModel(small_connector([3, 4, 5])).eval()
    clip, labels = torch.randn(50, WIDTH), Labels([1, 2], [5, 6, 7])
    alone = model(*pad_features([clip]), [labels])
    padded = torch.cat([clip, torch.randn(41, WIDTH)])[None]
    torch.testing.assert_close(model(padded, torch.tensor([50]), [labels]), alone, rtol=1e-4, atol=1e-4)


def test_masking_follows_its_generator_and_spares_the_original() -> None:
    features, lengths = torch.ones(3, 400, WIDTH), torch.tensor([400, 200, 100])
    first, again, other = (
        adaptation.mask_features(features, lengths, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert features.all()
    assert 0.03 < (first == 0).float().mean() < 0.4


def test_a_small_model_learns_four_utterances_by_heart() -> None:
    torch.manual_seed(1)
    tokenizer, texts = word_tokenizer(), ["open the door", "close the window", "clean the garage", "paint the fence"]
    labeller = Labeller(tokenizer, texts, least=1)
    model = AdaptationModel(small_connector(labeller.token_ids))
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    clips = [torch.randn(40 + 9 * n, WIDTH) for n in range(4)]
    features, lengths = pad_features(clips)
    losses = []
    for _ in range(150):
        reading, spelling = model(features, lengths, [labeller(text) for text in texts])
        optimizer.zero_grad()
        (reading + adaptation.SPELLING_WEIGHT * spelling).backward()
        optimizer.step()
        losses.append((reading.item(), spelling.item()))
    assert losses[-1][0] < 0.5 * losses[0][0]
    assert losses[-1][1] < 0.5 * losses[0][1]
    model.eval()
    assert [tokenizer.decode(ids) for ids in model.connector.tokens(features, lengths)] == texts


# The command ------------------------------------------------------------------------------------------------------

STEPS, SAVE = 150, 50
# The command itself with a small connector, small batches, and a tokenizer for the LLM that needs no weights.
COMMAND = """
import sys
from pathlib import Path
import test_adaptation
test_adaptation.shrink(setattr, Path(sys.argv.pop()))
test_adaptation.adaptation.main()
"""


def shrink(setattr: Any, llm: Path) -> None:
    """Let `train.adaptation` train a small connector in small batches, with the tokenizer in the folder `llm`."""
    small = partial(ConnectorConfig, layers=1, context_layers=1, width=64, heads=2, dropout=0.1)
    setattr(adaptation, "ConnectorConfig", small)
    setattr(adaptation, "FRAMES_PER_BATCH", 250)
    setattr(adaptation, "locate", lambda name: llm)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Forty cached utterances of random features, two of them for validation; the folder `llm` beside it."""
    word_tokenizer().save_pretrained(tmp_path / "llm")
    config = {"model_type": "llama", "hidden_size": 16, "num_attention_heads": 2}
    (tmp_path / "llm" / "config.json").write_text(json.dumps(config))
    folder, rng = tmp_path / "features", np.random.default_rng(1)
    folder.mkdir()
    texts = [text for text in SENTENCES * 2 if not held_out(text)][:38] + unseen(2)
    lines, start = [], 0
    for text in texts:
        lines.append({"start": start, "frames": int(rng.integers(30, 60)), "text": text, "source": "test"})
        start += lines[-1]["frames"]
    np.save(folder / "0-0000.npy", rng.standard_normal((start, WIDTH)).astype(np.float16))
    (folder / "0-0000.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def options(cache: Path, out: Path) -> list[str]:
    names = [str(cache), "--out", str(out), "--steps", str(STEPS), "--save", str(SAVE)]
    return [*names, "--llm", "smollm2-135m-instruct", "--threads", "1"]


def train(monkeypatch: pytest.MonkeyPatch, cache: Path, out: Path) -> None:
    shrink(monkeypatch.setattr, cache.parent / "llm")
    monkeypatch.setattr(sys, "argv", ["adaptation", *options(cache, out)])
    adaptation.main()


def kill_after_first_checkpoint(cache: Path, out: Path) -> int:
    """Run the command in a process of its own and kill it; returns the step of the state it left."""
    command = [sys.executable, "-c", COMMAND, *options(cache, out), str(cache.parent / "llm")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "checkpoint" / "config.json").exists():
        assert process.poll() is None, process.stderr.read().decode()
        assert time.monotonic() < deadline, "no checkpoint within two minutes"
        time.sleep(0.002)
    process.kill()
    process.communicate()
    with safe_open(out / "state.safetensors", "pt") as state:
        return int(state.metadata()["step"])


def curve(out: Path) -> dict[int, dict[str, float]]:
    """Losses and word error rates by step; where a step was done twice, both must agree."""
    steps: dict[int, dict[str, float]] = {}
    for line in (out / "log.jsonl").read_text().splitlines():
        entry = json.loads(line)
        entry.pop("clips_per_s", None)
        known = steps.setdefault(entry.pop("step"), {})
        for name, value in entry.items():
            assert known.setdefault(name, value) == pytest.approx(value, abs=1e-3)
    return steps


def test_killed_and_resumed_is_uninterrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = kill_after_first_checkpoint(cache, tmp_path / "killed")
    assert 0 < step < STEPS, "the process was not killed in the middle"
    train(monkeypatch, cache, tmp_path / "killed")
    assert f"38 utterances, 0.0 h, 11 tokens, from step {step}" in capsys.readouterr().out
    train(monkeypatch, cache, tmp_path / "whole")

    whole, resumed = curve(tmp_path / "whole"), curve(tmp_path / "killed")
    assert list(whole) == list(resumed) == list(range(25, STEPS + 1, 25))
    resumed[step].setdefault("validation_wer", whole[step]["validation_wer"])  # may have been killed while it read
    for done, losses in whole.items():
        assert resumed[done] == pytest.approx(losses, abs=1e-3), f"step {done}"
    assert whole[STEPS]["reading"] < 0.9 * whole[25]["reading"]  # it learns, so equal curves say something
    assert "validation_wer" in whole[STEPS]

    connectors = []
    for name in ("whole", "killed"):
        config = read_config(tmp_path / name / "checkpoint")
        assert (config.llm, config.connector.llm_width) == ("smollm2-135m-instruct", 16)
        connectors.append(read_connector(tmp_path / name / "checkpoint", config).state_dict())
    for name, value in connectors[0].items():
        torch.testing.assert_close(connectors[1][name], value, rtol=0, atol=2e-3)


def test_a_finished_run_adds_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    monkeypatch.setattr(sys.modules[__name__], "STEPS", 25)
    train(monkeypatch, cache, tmp_path / "run")
    before = {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()}
    train(monkeypatch, cache, tmp_path / "run")
    assert {file: file.read_bytes() for file in (tmp_path / "run").rglob("*") if file.is_file()} == before


def test_validation_sentences_are_never_trained_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "STEPS", 5)
    original, drawn = FeatureCache.__getitem__, []
    monkeypatch.setattr(FeatureCache, "__getitem__", lambda self, i: drawn.append(i) or original(self, i))
    train(monkeypatch, cache, tmp_path / "run")
    texts = [entry["text"] for entry in FeatureCache([cache]).entries]
    kept = [index for index in drawn if held_out(texts[index])]
    assert kept == [38, 39]  # read once, for validation
    assert len(drawn) > 20


def test_without_features_the_way_to_make_them_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"python -m train\.features"):
        train(monkeypatch, tmp_path / "empty", tmp_path / "run")
