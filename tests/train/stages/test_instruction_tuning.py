"""Stage 2: what an example is, what the loss sees, which parameters learn, and a checkpoint that answers with LoRA."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from torch.nn import functional

from assistant.lanes.lane import NOTHING_HEARD
from assistant.model.checkpoint import CheckpointConfig, read_config, read_connector, read_lora, write_checkpoint
from assistant.model.connector import Connector, pad_features
from assistant.model.heads import Speech
from assistant.model.llm import LLM, load_llm
from assistant.model.prompt import user_turn
from assistant.model.speech_lm import SpeechLM
from tests.conftest import tiny_connector
from tests.train.stages.test_adaptation import curve
from train.data.manifest import held_out
from train.stages import instruction_tuning
from train.stages.examples import (
    Spoken,
    conversation_examples,
    instructed,
    no_speech_example,
    self_powered_example,
    transcription_example,
)
from train.stages.instruction_tuning import TuningObjective, TuningRecipe
from train.stages.loop import Loop
from train.stages.reply_loss import Example, ReplyModel

TEXTS = [f"{verb} the {thing}" for verb in ("open", "close", "clean") for thing in ("door", "gate", "fence", "car")]
LINES = [
    {"text": text, "task": "repetition", "instruction": "Say it again", "language": "english", "target": f"{text}!"}
    for text in TEXTS
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    torch.set_num_threads(1)
    AcceleratorState._reset_state(reset_partial_state=True)  # it holds one precision for the process, whatever is asked
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def write_lines(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def recipe(tmp_path: Path, tiny_llm_folder: Path, tiny_whisper_folder: Path) -> Callable[..., TuningRecipe]:
    """A recipe on random features of `TEXTS` and one silent clip, a tiny LLM and a tiny stage 1 checkpoint."""
    folder, rng, lines, start = tmp_path / "features", np.random.default_rng(1), [], 0
    folder.mkdir()
    for text in [*TEXTS, *TEXTS[:6], ""]:
        frames = int(rng.integers(40, 80))
        lines.append({"start": start, "frames": frames, "text": text, "source": "test"})
        start += frames
    np.save(folder / "0-0000.npy", rng.standard_normal((start, 64)).astype(np.float16))
    write_lines(folder / "0-0000.jsonl", lines)
    manifest = write_lines(tmp_path / "self_powered.jsonl", LINES)
    connector = tiny_connector("vocabulary")
    config = CheckpointConfig.of(connector.config, str(tiny_whisper_folder), str(tiny_llm_folder))
    write_checkpoint(tmp_path / "stage1", config, connector.learnt(), connector.words)

    def make(**changes: object) -> TuningRecipe:
        settings: dict[str, object] = {
            "features": (folder,),
            "self_powered": (manifest,),
            "start": tmp_path / "stage1",
            "llm": str(tiny_llm_folder),
            "no_speech": 0.2,
            "loop": Loop(4, frames_per_batch=400, warmup=1, save_every=2, log_every=1),
        }
        return TuningRecipe(**{**settings, **changes})  # type: ignore[arg-type]

    return make


# Examples ---------------------------------------------------------------------------------------------------------


def test_a_self_powered_sample_is_put_as_the_lanes_put_it() -> None:
    example = self_powered_example(LINES[0])
    ((role, parts),) = example.turns
    written = ["<speech>" if isinstance(part, Spoken) else part for part in parts]
    asked = user_turn("<speech>", LINES[0]["instruction"])
    assert (role, written) == (asked.role, list(asked.parts))
    assert example.spoken == [TEXTS[0]]
    assert instructed("", "hello") == (Spoken("hello"),)


def test_vanilla_targets_are_transcripts_with_the_instruction_on_either_side() -> None:
    before, after = (transcription_example("open the door", "Write it down", after) for after in (False, True))
    assert before.target == after.target == "open the door"
    assert isinstance(before.turns[0][1][1], Spoken) and isinstance(after.turns[0][1][0], Spoken)


def test_a_conversation_is_one_example_for_each_reply_with_all_that_came_before() -> None:
    turns = [{"audio": "a", "text": "hi"}, {"reply": "hello"}, {"audio": "b", "text": "bye"}, {"reply": "so long"}]
    first, second = conversation_examples({"turns": turns})
    assert (first.target, second.target) == ("hello", "so long")
    assert [role for role, _ in second.turns] == ["user", "assistant", "user"]
    assert second.spoken == ["hi", "bye"]


# The loss ---------------------------------------------------------------------------------------------------------


class Reader(Connector):
    """Hands the LLM the embeddings of the words themselves: what a perfect connector would."""

    def __init__(self, llm: LLM, texts: list[str]) -> None:
        super().__init__()
        self._llm, self._texts = llm, texts

    def forward(self, features: torch.Tensor, lengths: torch.Tensor) -> list[Speech]:
        ids = [self._llm.tokenizer(text, add_special_tokens=False).input_ids for text in self._texts]
        return [Speech(self._llm.embeddings[torch.tensor(one)]) for one in ids]


def hearing(llm: LLM, *texts: str) -> SpeechLM:
    return SpeechLM(Reader(llm, list(texts)), llm=llm)


def test_the_loss_is_on_the_reply_alone(tiny_llm: LLM) -> None:
    examples = [
        Example((("user", ("Say it: ", Spoken("open"))),), "Open.", "repetition"),
        Example((("user", (Spoken("shut the door"),)),), "Done, it is shut.", "answer"),
    ]
    model = ReplyModel(hearing(tiny_llm, "open", "shut the door"), 0.0, 1.0)
    losses = model(*pad_features([torch.randn(20, 64), torch.randn(30, 64)]), examples)

    totals, count = 0.0, 0
    for text, reply in (("Say it: open", "Open."), ("shut the door", "Done, it is shut.")):
        chat = [{"role": "user", "content": text}]
        prompt = tiny_llm.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        ids = tiny_llm.tokenizer(prompt + reply + "</s>", add_special_tokens=False, return_tensors="pt").input_ids
        wanted = len(reply) + 1  # one token a byte, and the end
        logits = tiny_llm.model(input_ids=ids).logits[0, -wanted - 1 : -1]
        totals += functional.cross_entropy(logits, ids[0, -wanted:], reduction="sum").item()
        count += wanted
    assert losses["reply"].item() == pytest.approx(totals / count, rel=1e-4)
    assert losses["distillation"].item() == pytest.approx(0.0, abs=1e-5)  # it hears what the teacher reads


def test_distillation_pulls_towards_what_the_llm_reads(tiny_llm: LLM) -> None:
    example = Example((("user", (Spoken("open the door"),)),), "Done.", "answer")
    model = ReplyModel(hearing(tiny_llm, "paint the fence"), 0.0, 2.0)
    losses = model(*pad_features([torch.randn(20, 64)]), [example])
    assert losses["distillation"] > 1e-5  # a random LLM hardly cares what it reads
    torch.testing.assert_close(losses["loss"], losses["reply"] + 2 * losses["distillation"])


# What learns ------------------------------------------------------------------------------------------------------


def learning(objective: TuningObjective) -> set[str]:
    """Kinds of parameters that a step changes."""
    optimizer = torch.optim.SGD([{**group, "lr": 0.5} for group in objective.groups()], lr=0.5)
    before = {name: value.clone() for name, value in objective.model.named_parameters()}
    for seed in range(2):  # LoRA's second matrix begins at zero, so the first one learns from the second step on
        batch = objective.batch(list(range(4)), np.random.default_rng(seed))
        optimizer.zero_grad()
        objective.model(**batch)["loss"].backward()
        optimizer.step()
    changed = {name for name, value in objective.model.named_parameters() if not torch.equal(value, before[name])}
    kinds = {"connector": "connector.", "lora_A": "lora_A", "lora_B": "lora_B"}
    found = {kind for kind, mark in kinds.items() if any(mark in name for name in changed)}
    if any("llm_weights" in name and "lora_" not in name for name in changed):
        found.add("llm")
    return found


@pytest.mark.parametrize(
    ("tune", "expected"),
    [
        ("nothing", {"connector"}),
        ("lora", {"connector", "lora_A", "lora_B"}),
        ("full", {"connector", "llm"}),
    ],
)
@pytest.mark.parametrize("distillation", [0.0, 1.0])
def test_only_what_is_meant_to_learns(
    recipe: Callable[..., TuningRecipe], tune: str, expected: set[str], distillation: float
) -> None:
    if tune == "full" and distillation:
        with pytest.raises(ValueError, match="distillation needs LoRA"):
            TuningObjective(recipe(tune=tune, distillation=distillation))
        return
    assert learning(TuningObjective(recipe(tune=tune, distillation=distillation))) == expected


def test_an_llm_tuned_as_a_whole_is_kept_beside_the_connector(
    recipe: Callable[..., TuningRecipe], tmp_path: Path
) -> None:
    objective = TuningObjective(recipe(tune="full"))
    next(objective._llm.model.parameters()).data.add_(1.0)
    objective.export(tmp_path / "out")
    config = read_config(tmp_path / "out")
    assert config.lora is None and config.llm_sha256 is None
    tuned = load_llm(config.llm, "float32")
    assert torch.equal(tuned.embeddings, objective._llm.embeddings)


def test_mixed_precision_holds_the_llm_in_bfloat16_and_what_learns_in_float32(
    monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., TuningRecipe], tmp_path: Path
) -> None:
    mixed = recipe(loop=Loop(2, frames_per_batch=400, warmup=1, log_every=1, precision="bf16"))
    parameters = dict(TuningObjective(mixed).model.named_parameters())
    assert {value.dtype for value in parameters.values() if value.requires_grad} == {torch.float32}
    llm = {name: value for name, value in parameters.items() if not name.startswith("connector.")}
    assert {value.dtype for value in llm.values() if not value.requires_grad} == {torch.bfloat16}
    run(monkeypatch, mixed, tmp_path / "run", 2)
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(line["reply"]) for line in logged if "reply" in line)


def test_a_missing_checkpoint_to_start_from_is_named(
    monkeypatch: pytest.MonkeyPatch, recipe: Callable[..., TuningRecipe], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match="gone"):
        run(monkeypatch, recipe(start=tmp_path / "gone"), tmp_path / "run", 2)


def test_gradient_checkpointing_changes_no_gradient(recipe: Callable[..., TuningRecipe]) -> None:
    gradients = []
    for checkpointing in (False, True):
        objective = TuningObjective(recipe(loop=Loop(1, gradient_checkpointing=checkpointing)))
        objective.model(**objective.batch([0, 1, 2], np.random.default_rng(0)))["loss"].backward()
        found = {name: p.grad for name, p in objective.model.named_parameters() if p.grad is not None}
        gradients.append(found)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-6)


def test_a_residual_is_added_to_what_stage_1_learnt(recipe: Callable[..., TuningRecipe], tmp_path: Path) -> None:
    objective = TuningObjective(recipe(connector={"residual": True}))
    objective.export(tmp_path / "out")
    config = read_config(tmp_path / "out")
    assert config.connector.residual
    connector = read_connector(tmp_path / "out", config)
    assert not connector.state_dict()["head.residual.weight"].any()
    stage1 = read_connector(tmp_path / "stage1", read_config(tmp_path / "stage1"))
    assert torch.equal(connector.state_dict()["head.matrix.weight"], stage1.state_dict()["head.matrix.weight"])


@pytest.mark.parametrize("projection", ["linear", "vocabulary"])
def test_stage_2_can_begin_without_stage_1(
    recipe: Callable[..., TuningRecipe], projection: str, tiny_whisper_folder: Path
) -> None:
    shape = {"projection": projection, "layers": 1}
    objective = TuningObjective(recipe(start=None, connector=shape, whisper=str(tiny_whisper_folder)))
    losses = objective.model(**objective.batch([0, 1], np.random.default_rng(0)))
    assert ("reading" in losses) == (projection == "vocabulary")
    assert torch.isfinite(losses["loss"])


# What it learns from ----------------------------------------------------------------------------------------------


def test_what_cannot_be_learnt_from_is_listed(recipe: Callable[..., TuningRecipe], tmp_path: Path) -> None:
    odd = [
        {**LINES[0], "text": "never recorded"},
        {**LINES[0], "target": "word " * 300},
        {**LINES[1], "target": " "},
    ]
    manifest = write_lines(tmp_path / "odd.jsonl", [*LINES, *odd])
    objective = TuningObjective(recipe(self_powered=(manifest,)))
    reasons = [entry["reason"] for entry in objective.skipped()]
    assert reasons[0] == "no recording of these words in the feature caches"
    assert reasons[1].startswith("target of ") and reasons[2] == "empty target"
    assert len(objective.lengths()) > 0
    only = write_lines(tmp_path / "only.jsonl", odd[:1])
    with pytest.raises(ValueError, match=r"train\.data\.features"):
        TuningObjective(recipe(self_powered=(only,), no_speech=0.0))


def test_silence_is_answered_by_saying_so(recipe: Callable[..., TuningRecipe]) -> None:
    objective = TuningObjective(recipe(no_speech=0.5))
    silent = [example for example in objective._training if example.spoken == [""]]
    assert len(silent) == len(LINES) // 2
    assert {example.target for example in silent} == {NOTHING_HEARD}
    losses = objective.model(**objective._batch(silent, np.random.default_rng(0)))
    assert torch.isfinite(losses["loss"])
    assert no_speech_example("").spoken == [""]


def test_conversations_are_learnt_reply_by_reply(recipe: Callable[..., TuningRecipe], tmp_path: Path) -> None:
    turns = [{"text": TEXTS[0]}, {"reply": "Which one?"}, {"text": TEXTS[1]}, {"reply": "Done."}]
    talks = write_lines(tmp_path / "conversations.jsonl", [{"turns": turns}])
    objective = TuningObjective(recipe(conversations=(talks,), no_speech=0.0))
    both = [example for example in objective._training if example.task == "conversation"]
    assert [example.target for example in both] == ["Which one?", "Done."] and both[1].spoken == TEXTS[:2]
    assert torch.isfinite(objective.model(**objective._batch(both, np.random.default_rng(0)))["loss"])


def test_held_out_sentences_are_not_learnt(recipe: Callable[..., TuningRecipe], tmp_path: Path) -> None:
    text = next(f"open gate {n}" for n in range(1000) if held_out(f"open gate {n}"))
    features = tmp_path / "more"
    features.mkdir()
    np.save(features / "0-0000.npy", np.zeros((50, 64), np.float16))
    write_lines(features / "0-0000.jsonl", [{"start": 0, "frames": 50, "text": text, "source": "test"}])
    manifest = write_lines(tmp_path / "more.jsonl", [*LINES, {**LINES[0], "text": text}])
    plain = recipe()
    objective = TuningObjective(recipe(self_powered=(manifest,), features=(*plain.features, features)))
    assert text not in {word for example in objective._training for word in example.spoken}
    assert "validation_reply" in objective.evaluate()


# The command ------------------------------------------------------------------------------------------------------


def run(monkeypatch: pytest.MonkeyPatch, recipe: TuningRecipe, out: Path, steps: int) -> None:
    text = f"""
features = ["{recipe.features[0]}"]
self_powered = ["{recipe.self_powered[0]}"]
start = "{recipe.start}"
llm = "{recipe.llm}"
no_speech = 0.2
distillation = 0.5
[loop]
steps = {steps}
frames_per_batch = 400
accumulate = 2
warmup = 1
decay = 0.0
precision = "{recipe.loop.precision}"
save_every = 2
log_every = 1
"""
    (out.parent / "tuning.toml").write_text(text)
    monkeypatch.setattr(sys, "argv", ["tuning", str(out.parent / "tuning.toml"), "--out", str(out)])
    instruction_tuning.main()


def test_a_run_goes_on_and_its_checkpoint_answers_with_lora_alone_changed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, recipe: Callable[..., TuningRecipe], tiny_llm_folder: Path
) -> None:
    run(monkeypatch, recipe(), tmp_path / "whole", 4)
    run(monkeypatch, recipe(), tmp_path / "parts", 2)
    run(monkeypatch, recipe(), tmp_path / "parts", 4)
    whole, parts = curve(tmp_path / "whole"), curve(tmp_path / "parts")
    assert list(whole) == list(parts) == [1, 2, 3, 4]
    for step, losses in whole.items():
        assert parts[step] == pytest.approx(losses, abs=2e-3), f"step {step}"

    checkpoint = tmp_path / "whole" / "checkpoint"
    config = read_config(checkpoint)
    tuned = load_llm(str(tiny_llm_folder), "float32", lora=read_lora(checkpoint, config))
    plain = load_llm(str(tiny_llm_folder), "float32")
    ids = torch.arange(5, 40)[None]
    assert torch.equal(tuned.model(input_ids=ids).logits, plain.model(input_ids=ids).logits)
    with tuned.lora():
        assert not torch.allclose(tuned.model(input_ids=ids).logits, plain.model(input_ids=ids).logits, atol=1e-6)
