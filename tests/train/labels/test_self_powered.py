"""Self-Powered targets on a tiny LLM: same seed, same manifest, also when killed, shared out, or asked for more."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from accelerate import PartialState
from safetensors.torch import load_file, save_file

from assistant.files import ROOT
from assistant.model.completion import complete
from assistant.model.llm import load_llm
from assistant.model.prompt import user_turn
from train.data.manifest import read_manifest
from train.labels import self_powered
from train.labels.instructions import InstructionPool
from train.labels.self_powered import PART, plan

WORDS = ["please", "turn", "on", "the", "kitchen", "light", "and", "play", "some", "music", "tomorrow", "morning"]


@pytest.fixture(scope="session")
def writer(tiny_llm_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LLM that writes lower-case letters, spaces and full stops, and ends most replies before the limit."""
    folder = tmp_path_factory.mktemp("writer")
    shutil.copytree(tiny_llm_folder, folder, dirs_exist_ok=True)
    tokenizer = load_llm(str(folder), "float32").tokenizer
    state = load_file(folder / "model.safetensors")
    torch.manual_seed(4)
    head = torch.zeros_like(state["lm_head.weight"])
    likely = [*tokenizer("etaoinsr hdlu.", add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    head[likely] = torch.randn(len(likely), head.shape[1])
    head[tokenizer.eos_token_id] *= 1.5
    save_file({**state, "lm_head.weight": head}, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_utterances(path: Path, count: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    with path.open("w", encoding="utf-8") as file:
        for index in range(count):
            text = "打开厨房的灯" * (1 + index % 3) if index % 5 == 4 else " ".join(rng.choice(WORDS, 3 + index % 9))
            entry = {"audio": f"clips/{index}.flac", "text": text, "speaker": "s", "duration": 3.6, "source": "test"}
            file.write(json.dumps(entry, ensure_ascii=False) + "\n")
    return path


def command(source: Path | str, out: Path, writer: Path, *more: str) -> list[str]:
    return [str(source), "--out", str(out), "--llm", str(writer), "--precision", "float32", "--max-tokens", "12", *more]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["self_powered", *command(*arguments)])
    PartialState._reset_state()
    self_powered.main()


def in_process(*arguments: Any) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "train.labels.self_powered", *command(*arguments)], cwd=ROOT, env=environment
    )


# What is drawn ----------------------------------------------------------------------------------------------------


def test_tasks_are_even_and_follow_from_seed_and_utterance_alone(tmp_path: Path) -> None:
    pool = InstructionPool.load()
    utterances = list(read_manifest(write_utterances(tmp_path / "m.jsonl", 1600)))
    jobs = plan(utterances, pool, 1, 1)
    drawn = Counter(job.task.name for job in jobs)
    assert set(drawn) == set(pool.tasks) and min(drawn.values()) > 150 and max(drawn.values()) < 250
    assert plan(list(reversed(utterances)), pool, 1, 1) == list(reversed(jobs))
    moved = [{**utterance, "audio": f"/elsewhere/{Path(utterance['audio']).name}"} for utterance in utterances]
    assert [job.instruction for job in plan(moved, pool, 1, 1)] == [job.instruction for job in jobs]
    assert [job.instruction for job in plan(utterances, pool, 1, 2)] != [job.instruction for job in jobs]
    for job in jobs:
        assert not job.instruction or job.instruction in job.task.wordings[job.language]
    three = plan(utterances[:50], pool, 3, 1)
    assert len(three) == 150 and all(len({j.task.name for j in three[n : n + 3]}) == 3 for n in range(0, 150, 3))


# What is written --------------------------------------------------------------------------------------------------


def test_the_manifest_holds_what_the_llm_says_to_the_shared_prompt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_utterances(tmp_path / "in" / "m.jsonl", 160)
    with source.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"audio": "x.flac", "text": None, "speaker": None, "duration": 1, "source": "t"}) + "\n")
    run(monkeypatch, source, tmp_path / "out", writer)
    shown = capsys.readouterr().out
    entries = list(read_manifest(tmp_path / "out" / "manifest.jsonl"))
    figures = json.loads((tmp_path / "out" / "statistics.json").read_text("utf-8"))
    llm = load_llm(str(writer), "float32")
    by_audio = {entry["audio"]: entry for entry in read_manifest(source)}
    asked = [entry for entry in entries if entry["task"] != "recognition"]
    assert len(asked) > 15 and len({entry["task"] for entry in asked}) >= 3
    for entry in entries:
        whence = by_audio[entry["audio"]]
        assert {key: entry[key] for key in whence} == whence
        assert entry["language"] == ("chinese" if "灯" in entry["text"] else "english")
        if entry["task"] == "recognition":
            assert entry["target"] == entry["text"]
        else:
            prompt = llm.prompt([user_turn(entry["text"], entry["instruction"])])
            assert complete(llm, [prompt], 12)[0].text.strip() == entry["target"]

    total = figures["tasks"]["total"]
    assert (total["drawn"], total["kept"]) == (160, len(entries))
    assert total["kept"] + sum(total["rejected"].values()) == 160
    assert {"truncated", "wrong language", "not repeated"} <= set(total["rejected"])
    assert total["hours"] == pytest.approx(len(entries) * 3.6 / 3600, abs=0.006)
    assert total["english"] + total["chinese"] == len(entries)
    assert figures["tasks"]["recognition"]["kept_share"] == 1.0
    assert figures["without_transcript_or_readable_audio"] == 1
    assert "| recognition |" in shown and "truncated" in shown


@pytest.fixture(scope="module")
def whole(writer: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an uninterrupted run of one process: three parts, the last not full, from its `m.jsonl`."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        run(patch, write_utterances(folder / "m.jsonl", 3 * PART - 7), folder, writer)
    return folder


def parts(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("parts/*.json")}


def test_more_utterances_leave_finished_parts_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: Path, whole: Path
) -> None:
    run(monkeypatch, whole / "m.jsonl", tmp_path, writer, "--limit", str(PART + 9))
    first = parts(tmp_path)
    assert len(first) == 2 and len(first.keys() & parts(whole).keys()) == 1
    run(monkeypatch, whole / "m.jsonl", tmp_path, writer)
    assert first.items() <= parts(tmp_path).items() and len(parts(tmp_path)) == 4  # the part that grew is a new one
    assert texts(tmp_path) == texts(whole)


def texts(out: Path) -> list[tuple[str, str, str]]:
    return [(e["text"], e["instruction"], e["target"]) for e in read_manifest(out / "manifest.jsonl")]


@pytest.mark.thorough
def test_killed_and_started_again_it_writes_what_an_uninterrupted_run_writes(
    tmp_path: Path, writer: Path, whole: Path
) -> None:
    source, out = whole / "m.jsonl", tmp_path / "killed"
    process = in_process(source, out, writer)
    deadline = time.monotonic() + 300
    while not parts(out):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = parts(out)
    assert 1 <= len(finished) < 3 and not (out / "manifest.jsonl").exists()
    assert in_process(source, out, writer).wait(300) == 0
    assert finished.items() <= parts(out).items()
    assert texts(out) == texts(whole)
    assert (out / "statistics.json").read_text() == (whole / "statistics.json").read_text()


@pytest.mark.thorough
def test_two_processes_write_what_one_writes(tmp_path: Path, writer: Path, whole: Path) -> None:
    launch = ["accelerate.commands.launch", "--cpu", "--num_processes", "2", "--num_machines", "1"]
    launch += ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            *launch,
            "-m",
            "train.labels.self_powered",
            *command(whole / "m.jsonl", tmp_path, writer),
        ],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert texts(tmp_path) == texts(whole)
    assert (tmp_path / "statistics.json").read_text() == (whole / "statistics.json").read_text()
    assert done.stdout.count("| recognition |") == 1


# Where utterances come from ---------------------------------------------------------------------------------------


def speech(path: Path, seconds: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(16_000 * seconds)), 16_000)
    return path


def test_a_folder_of_audio_with_text_beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: Path) -> None:
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "asr.toml").write_text('title = "ASR"\ntarget = "transcript"\nenglish = ["Write"]', "utf-8")
    for name, text in (("a", "good morning"), ("b", "good night"), ("c", None)):
        clip = speech(tmp_path / "corpus" / "speaker one" / f"{name}.wav", 0.5)
        if text:
            clip.with_suffix(".txt").write_text(text + "\n", "utf-8")
    (tmp_path / "corpus" / "speaker one" / "broken.flac").write_bytes(b"no audio")
    (tmp_path / "corpus" / "speaker one" / "broken.txt").write_text("lost", "utf-8")
    run(monkeypatch, tmp_path / "corpus", tmp_path / "out", writer, "--instructions", str(pool))
    entries = list(read_manifest(tmp_path / "out" / "manifest.jsonl"))
    assert [entry["target"] for entry in entries] == ["good morning", "good night"]
    assert all(Path(entry["audio"]).exists() and entry["duration"] == 0.5 for entry in entries)
    assert {(entry["speaker"], entry["source"]) for entry in entries} == {("speaker one", "corpus")}
    figures = json.loads((tmp_path / "out" / "statistics.json").read_text("utf-8"))
    assert figures["without_transcript_or_readable_audio"] == 2


def test_a_hugging_face_data_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: Path) -> None:
    datasets = pytest.importorskip("datasets")
    clip = speech(tmp_path / "a.flac", 0.5).read_bytes()
    rows = {"audio": [{"bytes": clip, "path": "a.flac"}] * 2, "sentence": ["good morning", "good night"]}
    rows = datasets.Dataset.from_dict(rows).cast_column("audio", datasets.Audio(decode=False))
    saved = datasets.DatasetDict({"train": rows})
    saved.save_to_disk(tmp_path / "saved")
    pool = tmp_path / "pool"
    pool.mkdir()
    (pool / "asr.toml").write_text('title = "ASR"\ntarget = "transcript"\nenglish = ["Write"]', "utf-8")
    run(monkeypatch, tmp_path / "saved", tmp_path / "out", writer, "--instructions", str(pool))
    entries = list(read_manifest(tmp_path / "out" / "manifest.jsonl"))
    assert [entry["target"] for entry in entries] == ["good morning", "good night"]
    assert [Path(entry["audio"]).read_bytes() for entry in entries] == [clip, clip]
    assert {(entry["source"], entry["duration"]) for entry in entries} == {("saved", 0.5)}


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: folder / "dev", "held out"),
        (lambda folder: folder / "set@test", "held out"),
        (lambda folder: folder / "empty", "neither manifests"),
        (lambda folder: folder / "broken.jsonl", 'broken.jsonl, line 2: "audio" must be str, and is'),
    ],
)
def test_what_cannot_be_used_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    writer: Path,
    capsys: pytest.CaptureFixture[str],
    make: Any,
    said: str,
) -> None:
    for name in ("dev", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken.jsonl").write_text('{"audio": "a.flac", "text": "a"}\n{"text": "b"}\n', "utf-8")
    with pytest.raises(SystemExit) as stopped:
        run(monkeypatch, make(tmp_path), tmp_path / "out", writer)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_without_datasets_the_way_to_get_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, writer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SystemExit):
        run(monkeypatch, "someone/speech", tmp_path / "out", writer)
    assert "pip install datasets" in capsys.readouterr().err
