"""The whole command on random models and real recordings: what it writes, what it keeps, how it refuses."""

import json
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from whisper.model import ModelDimensions, Whisper

from assistant.model.checkpoint import CheckpointConfig, read_config, write_checkpoint
from assistant.model.llm import LLM, load_llm
from tests.conftest import tiny_connector
from train.evaluation import answering, evaluate, hearing, retention, systems
from train.questions.suites import RETENTION

LORA = {"r": 2, "lora_alpha": 32, "target_modules": ["q_proj", "v_proj"]}
WANTED = ["following", "intent", "no speech", "conditions", RETENTION]


@pytest.fixture(scope="module")
def brief_whisper() -> Whisper:
    """A random Whisper whose transcripts are at most 16 tokens long."""
    torch.manual_seed(0)
    model = Whisper(ModelDimensions(80, 1500, 64, 1, 2, 51865, 32, 64, 1, 2))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


@pytest.fixture
def folder(
    tmp_path: Path,
    tiny_llm_folder: Path,
    tiny_whisper_folder: Path,
    brief_whisper: Whisper,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Two checkpoints that differ in their LoRA, and no data but a little text; short replies."""
    monkeypatch.setattr(hearing, "load_whisper", lambda name, device="cpu": brief_whisper)
    monkeypatch.setattr(answering, "MAX_TOKENS", 8)
    connector = tiny_connector("vocabulary")
    for seed, name in enumerate(("tuned", "vanilla")):
        torch.manual_seed(seed)
        llm = load_llm(str(tiny_llm_folder), "float32")
        llm.add_lora({**LORA, "init_lora_weights": False})
        config = CheckpointConfig.of(connector.config, str(tiny_whisper_folder), str(tiny_llm_folder), LORA)
        write_checkpoint(tmp_path / name, config, connector.learnt(), connector.words, llm.lora_state())
    text = tmp_path / "data" / "text"
    text.mkdir(parents=True)
    rows = [{"text": f"do thing number {n}", "intent": f"DoThing{n}"} for n in range(6)]
    (text / "snips_val.jsonl").write_text("\n".join(map(json.dumps, rows)), "utf-8")
    row = {"question": "Which is a colour?", "options": ["red", "dog", "two", "run"], "answer": "A"}
    (text / "mmlu_subset.jsonl").write_text("\n".join([json.dumps(row)] * 3), "utf-8")
    return tmp_path


def run(folder: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> dict[str, Any]:
    options = ["--out", str(folder / "out"), "--checkpoint", str(folder / "tuned"), "--data", str(folder / "data")]
    command = ["evaluate", *options, "--precision", "float32", "--device", "cpu", *more]
    monkeypatch.setattr(sys, "argv", command)
    evaluate.main()
    content: dict[str, Any] = json.loads((folder / "out" / "evaluation.json").read_text("utf-8"))
    return content


def test_the_whole_command(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    compare = ("--compare", f"vanilla={folder / 'vanilla'}")
    monkeypatch.chdir(folder)
    content = run(folder, monkeypatch, *compare, "--limit", "2", "--suite", *WANTED)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["records"] > 0
    assert list(content["systems"]) == ["end_to_end", "cascade", "upper_bound", "vanilla"]
    assert content["systems"]["end_to_end"]["what"] == "checkpoint tuned"  # nothing of whose machine it was
    assert content["systems"]["end_to_end"]["sha256"] != content["systems"]["vanilla"]["sha256"]
    assert content["lora_off_logits_identical"] is True
    assert any(sentence.startswith("librispeech: ") for sentence in content["left_out"])
    figures = {(f["suite"], f["task"], f["set"], f["voice"], f["system"], f["measure"]): f for f in content["figures"]}
    assert all(f["low"] <= f["value"] <= f["high"] for f in figures.values() if f["value"] == f["value"])
    assert ("following", "translation", "all", "synthetic", "vanilla", "follows") in figures
    assert ("intent", "intent", "snips", "synthetic", "cascade", "accuracy") in figures
    assert figures["no speech", "all", "silence", "synthetic", "end_to_end", "says_nothing_was_heard"]["value"] == 1
    assert figures["retention", "multiple choice", "all", "text", "upper_bound", "accuracy"]["clips"] == 2

    records = [json.loads(line) for line in (folder / "out" / "clips.jsonl").read_text("utf-8").splitlines()]
    asked = next(r for r in records if r["suite"] == "following" and r["task"] == "translation")
    assert asked["instruction"] and Path(asked["audio"]).exists()
    assert asked["systems"]["upper_bound"]["heard"] == asked["text"]
    replies = [{name: told.get("reply") for name, told in record["systems"].items()} for record in records]
    # The LoRA was swapped; a random LLM may end up in the same loop whatever it hears, but not every time.
    assert any(told["end_to_end"] != told["vanilla"] for told in replies if "vanilla" in told)
    for record in records:
        for entry in record["systems"].values():
            assert entry["scores"].get("follows", [1, 1])[0] == (entry.get("failure") is None)

    report = (folder / "out" / "report.md").read_text("utf-8")
    assert "## Following instructions" in report and "bit for bit those of the bare LLM" in report
    assert "| translation |" in report and "synthetic: vanilla" in report
    sums = [after for row, after in pairwise(report.splitlines()) if row.startswith("| all |")]
    assert sums and not any(after.startswith("|") for after in sums)  # what is added up stands above its sum
    for plot in (folder / "out").glob("*.svg"):
        ET.parse(plot)
        assert f"]({plot.name})" in report


def test_a_second_run_needs_no_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--limit", "1", "--suite", "intent", RETENTION)
    first = run(folder, monkeypatch, *options)

    def refuse(*_: Any, **__: Any) -> LLM:
        raise AssertionError("loaded again")

    monkeypatch.setattr(systems, "load_llm", refuse)
    monkeypatch.setattr(retention, "load_llm", refuse)
    assert run(folder, monkeypatch, *options)["figures"] == first["figures"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--compare", "vanilla"), "give NAME=DIR"),
        (("--compare", "cascade=somewhere"), "give NAME=DIR"),
        (("--compare", "other=/nowhere"), "holds no checkpoint"),
        (("--limit", "0"), "--limit must be at least 1"),
        (("--suite", "singing"), "invalid choice"),
        (("--precision", "int3"), "invalid choice"),
        (("--suite", RETENTION, "--data", "/nowhere"), "Nothing to evaluate"),
    ],
)
def test_bad_input_gets_a_sentence(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    said: str,
) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(folder, monkeypatch, "--limit", "1", *options)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_checkpoint_of_other_base_models_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    connector = tiny_connector("linear")
    config = CheckpointConfig.of(connector.config, "another-whisper", "another-llm")
    write_checkpoint(folder / "other", config, connector.learnt())
    with pytest.raises(SystemExit):
        run(folder, monkeypatch, "--compare", f"other={folder / 'other'}")
    assert "was trained with another-whisper and another-llm" in capsys.readouterr().err


def test_a_checkpoint_without_lora_and_one_with_other_settings(folder: Path, tiny_llm_folder: Path) -> None:
    connector = tiny_connector("linear")
    whisper = read_config(folder / "tuned").whisper
    write_checkpoint(
        folder / "plain", CheckpointConfig.of(connector.config, whisper, str(tiny_llm_folder)), connector.learnt()
    )
    llm = load_llm(str(tiny_llm_folder), "float32")
    llm.add_lora({**LORA, "r": 4, "init_lora_weights": False})
    config = CheckpointConfig.of(connector.config, whisper, str(tiny_llm_folder), {**LORA, "r": 4})
    write_checkpoint(folder / "wide", config, connector.learnt(), (), llm.lora_state())
    folders = {"end_to_end": folder / "plain", "tuned": folder / "tuned", "wide": folder / "wide"}
    bench = systems.Bench(folders, "float32", torch.device("cpu"))
    by_name = {system.name: system for system in bench.systems}
    logits = {}
    for name in ("end_to_end", "cascade", "tuned", "wide", "upper_bound", "tuned"):
        with bench.llm(by_name[name]) as llm:
            found = llm.model(input_ids=torch.tensor([[5, 6, 7]])).logits
        assert name not in logits or torch.equal(logits[name], found)
        logits[name] = found
    assert torch.equal(logits["end_to_end"], logits["cascade"]) and torch.equal(
        logits["cascade"], logits["upper_bound"]
    )
    assert not torch.equal(logits["tuned"], logits["cascade"]) and not torch.equal(logits["tuned"], logits["wide"])
