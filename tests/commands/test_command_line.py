"""`launch.py` as people and programs use it: ask, bench, options, exit codes; on lanes that follow a script."""

import json
import os
import socket
import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

import launch
from assistant.commands import bench as benchmark
from assistant.files import ROOT
from assistant.lanes import loading as lanes
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import Chunk, Heard, Lane, Reply, TextDelta
from assistant.latency import TERMS, Latency
from assistant.model.weights import WeightsError
from assistant.sound import audio
from assistant.sound.audio import AudioError, Utterance


class ScriptedLane(Lane):
    """Says the same of every clip, claims the latency it is told to, and refuses clips by name."""

    def __init__(self, name: str, journal: list[str], factor: float = 1.0, refuses: str = "") -> None:
        self.name = name
        self.precision = "scripted"
        self.journal = journal
        self.factor = factor
        self.refuses = refuses

    def answer(self, turn: Turn, *rest: object) -> Iterator[Chunk]:
        (utterance,), instruction = turn.clips, turn.text or None
        self.journal.append(f"{self.name} {utterance.name}")
        if self.refuses and self.refuses in utterance.name:
            raise AudioError("No words were heard.")
        print("a library prints this")
        yield Heard("the words")
        yield TextDelta("你好, ")
        yield TextDelta(f"{instruction}")
        first = 10.0 * self.factor * utterance.duration
        latency = Latency(encode=2.0, prefill=1.0, first_token=first, total=2 * first, reply_tokens=2, rtf=0.1)
        yield Reply(f"你好, {instruction}", "the words", latency)


def clip(path: Path, seconds: float = 1.0) -> Path:
    samples = 0.3 * np.sin(np.arange(int(seconds * 16_000)) / 20)
    soundfile.write(path, samples, 16_000)
    return path


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the lanes were asked, in order; `launch.py` gets scripted lanes for the real ones."""
    asked: list[str] = []
    scripted: dict[str, Lane] = {
        "end_to_end": ScriptedLane("end_to_end", asked, 0.5),
        "cascade": ScriptedLane("cascade", asked, 2.0),
    }

    def load(options: lanes.ModelOptions | None) -> dict[str, Lane]:
        wanted = (options or lanes.ModelOptions()).lanes
        return {name: lane for name, lane in scripted.items() if name in wanted}

    monkeypatch.setattr(lanes, "load_lanes", load)
    return asked


# ask --------------------------------------------------------------------------------------------------------------


def test_ask_json_is_the_contract_and_nothing_else(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(clip(tmp_path / name)) for name in ("a.wav", "b.wav")]
    assert launch.main(["ask", *files, "--instruction", "translate", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [answer["audio"] for answer in answers] == files
    for answer in answers:
        assert list(answer) == ["audio", "duration_s", "instruction", "hardware", "lanes"]
        assert (answer["duration_s"], answer["instruction"]) == (1.0, "translate")
        assert list(answer["lanes"]["end_to_end"]) == ["text", "reading", "latency"]
        assert list(answer["lanes"]["cascade"]) == ["text", "transcript", "latency"]
        assert answer["lanes"]["cascade"]["text"] == "你好, translate"
        assert set(answer["lanes"]["cascade"]["latency"]) == set(TERMS)


def test_ask_without_instruction_says_null(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["ask", str(clip(tmp_path / "a.wav")), "--json", "--lane", "cascade"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["instruction"] is None
    assert list(answer["lanes"]) == ["cascade"]
    assert journal == ["cascade a.wav"]


def test_ask_shows_replies_and_where_the_time_went(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["ask", str(clip(tmp_path / "a.wav")), "--instruction", "repeat"]) == 0
    shown = capsys.readouterr().out
    for words in ("reading: the words", "transcript: the words", "你好, repeat", "first token 20 ms", "total 10 ms"):
        assert words in shown


def test_ask_answers_the_good_clips_and_names_the_bad_one(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text.wav"
    text.write_text("not audio")
    assert launch.main(["ask", str(text), str(clip(tmp_path / "a.wav")), "--json"]) == 2
    shown = capsys.readouterr()
    assert "text.wav" in shown.err
    assert json.loads(shown.out)["audio"].endswith("a.wav")


def test_ask_without_any_usable_clip_never_loads_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def forbidden(options: object) -> None:
        raise AssertionError("models were loaded")

    monkeypatch.setattr(lanes, "load_lanes", forbidden)
    silent = tmp_path / "silent.wav"
    soundfile.write(silent, np.zeros(16_000), 16_000)
    assert launch.main(["ask", str(silent), str(tmp_path / "missing.wav")]) == 2
    shown = capsys.readouterr().err
    assert "silent.wav is silent" in shown
    assert "missing.wav does not exist" in shown


def test_ask_takes_files_whatever_they_are_called(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["-take.wav", "take[1].wav", "two\nlines\u2028.wav", "会议 10:15.wav"]
    for name in names:
        clip(tmp_path / name)
    assert launch.main(["ask", *names, "--json", "--lane", "cascade"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["audio"] for line in lines] == names
    assert launch.main(["ask", names[2], "--lane", "cascade"]) == 0
    assert "two\\nlines\\u2028.wav (1.0 s)" in capsys.readouterr().out


def test_ask_expands_a_pattern_and_names_the_one_that_matches_nothing(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.wav", "a.wav", "c.flac"):
        clip(tmp_path / name)
    given = ["ask", str(tmp_path / "*.wav"), str(tmp_path / "*.opus"), str(tmp_path / "c.flac"), "--lane", "cascade"]
    assert launch.main(given) == 2
    assert journal == ["cascade a.wav", "cascade b.wav", "cascade c.flac"]
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert "*.opus does not exist" in said


def test_ask_holds_one_clip_at_a_time(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand files are opened as they are answered; a bad one among them costs its own answer alone."""
    held: weakref.WeakSet[Utterance] = weakref.WeakSet()
    most = 0

    def load(path: Path) -> Utterance:
        nonlocal most
        journal.append(f"opened {path.name}")
        if path.name.endswith("7"):
            raise AudioError(f"{path.name} is not audio that can be read.")
        utterance = Utterance(np.full(16_000, 0.1, np.float32), name=path.name)
        held.add(utterance)
        most = max(most, len(held))
        return utterance

    monkeypatch.setattr(audio, "load_utterance", load)
    monkeypatch.setattr(Utterance, "__hash__", object.__hash__)
    names = [f"{number:04}" for number in range(1000)]
    assert launch.main(["ask", *names, "--json", "--lane", "cascade"]) == 2
    shown = capsys.readouterr()
    assert [json.loads(line)["audio"] for line in shown.out.splitlines()] == [one for one in names if one[-1] != "7"]
    assert journal[:4] == ["opened 0000", "cascade 0000", "opened 0001", "cascade 0001"]
    assert shown.err.count("is not audio") == 100 and most <= 2


# errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "code"), [([], launch.OUR_FAULT), (["--llm", "no-such-model"], launch.BAD_INPUT)])
def test_unusable_model_is_bad_input_only_when_it_was_asked_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
) -> None:
    def broken(options: lanes.ModelOptions) -> dict[str, Lane]:
        raise WeightsError(f"Unknown model {options.llm}.\nSecond line.")

    monkeypatch.setattr(lanes, "load_lanes", broken)
    assert launch.main(["ask", str(clip(tmp_path / "a.wav")), *options]) == code
    shown = capsys.readouterr()
    assert "Unknown model" in shown.err
    assert "Traceback" not in shown.err
    assert shown.out == ""


def test_debug_shows_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(options: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr(lanes, "load_lanes", broken)
    arguments = ["ask", str(clip(tmp_path / "a.wav"))]
    monkeypatch.delenv("EARSHOT_DEBUG", raising=False)
    assert launch.main(arguments) == 1
    monkeypatch.setenv("EARSHOT_DEBUG", "1")
    with pytest.raises(RuntimeError, match="boom"):
        launch.main(arguments)


def test_model_options_reach_the_loader_wherever_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, journal: list[str]
) -> None:
    seen: list[lanes.ModelOptions] = []
    scripted = lanes.load_lanes(None)
    monkeypatch.setattr(lanes, "load_lanes", lambda options: seen.append(options) or scripted)
    path = str(clip(tmp_path / "a.wav"))
    launch.main(["--precision", "float32", "ask", path, "--llm", "tiny", "--checkpoint", str(tmp_path)])
    launch.main(["ask", path])
    assert (seen[0].precision, seen[0].llm, seen[0].checkpoint) == ("float32", "tiny", tmp_path)
    assert seen[1] == lanes.ModelOptions()


def test_help_is_instant_and_needs_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, launch\n"
        "try: launch.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'gradio', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"
    assert "--no-browser" in run.stdout


@pytest.mark.parametrize("entry", ["launch", "train.synthesis.synthesize", "ui.serving"])
@pytest.mark.thorough
def test_no_library_reports_its_use(entry: str) -> None:
    code = f"import os, {entry}; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['GRADIO_ANALYTICS_ENABLED'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["1", "False"]


@pytest.mark.parametrize("arguments", [["ask"], ["--port", "0"], ["bench", "--repeat", "-1"], ["sing"]])
def test_wrong_usage_exits_2(arguments: list[str]) -> None:
    run = subprocess.run([sys.executable, "launch.py", *arguments], cwd=ROOT, capture_output=True, check=False)
    assert run.returncode == 2
    assert b"usage" in run.stderr


def test_next_free_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert port < launch.free_port("127.0.0.1", port) < port + 100
    with pytest.raises(launch.BadInput, match="not an address"):
        launch.free_port("no.such.host.invalid", 7860)


# bench ------------------------------------------------------------------------------------------------------------


def bench(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], dict, str]:
    assert launch.main(["bench", *arguments]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    return lines[:-1], json.loads(lines[-1]), shown.err


@pytest.mark.thorough
def test_bench_figures_are_the_medians_and_per_clip_ratios(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seconds in (("a.wav", 1), ("b.wav", 2), ("c.wav", 5), ("d.wav", 10)):
        clip(tmp_path / name, seconds)
    table, result, _ = bench(capsys, str(tmp_path))
    assert result["clips"] == 4
    assert result["precision"] == "scripted"
    assert result["lanes"]["cascade"]["first_token"]["median"] == 70.0  # 20 ms a second; 1, 2, 5, 10 s
    assert result["lanes"]["end_to_end"]["total"] == {"median": 35.0, "p95": 92.5}
    assert result["ratio"] == {"first_token": 0.25, "total": 0.25}
    assert [(bucket["duration"], bucket["clips"]) for bucket in result["by_duration"]] == [
        ("<3 s", 2),
        ("3-8 s", 1),
        ("8-15 s", 1),
    ]
    assert result["by_duration"][1]["lanes"]["cascade"]["first_token"]["median"] == 100.0
    assert "connect" not in result["lanes"]["cascade"]  # never measured, so never a figure
    shown = "\n".join(table)
    assert "first_token" in shown
    assert "8-15 s (1 clip)" in shown


def test_ratio_is_of_each_clip_not_of_the_medians() -> None:
    def one(number: int, lane: str, total: float) -> benchmark.Measurement:
        return benchmark.Measurement(number, 1.0, lane, Latency(total=total))

    pairs = [(10.0, 100.0), (300.0, 300.0), (20.0, 400.0)]
    measured = [
        one(number, lane, total)
        for number, pair in enumerate(pairs)
        for lane, total in zip(("end_to_end", "cascade"), pair, strict=True)
    ]
    assert benchmark.summary(measured)["ratio"] == {"total": 0.1}  # of 0.1, 1.0, 0.05


@pytest.mark.thorough
def test_bench_warms_up_alternates_and_repeats(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.wav", "b.wav"):
        clip(tmp_path / name, 1)
    bench(capsys, str(tmp_path), "--repeat", "2")
    warm_up, counted = journal[:4], journal[4:]
    assert sorted(entry.split()[0] for entry in warm_up) == ["cascade"] * 2 + ["end_to_end"] * 2
    ends = ["end_to_end", "cascade"]
    assert [entry.split()[0] for entry in counted] == [*ends, *reversed(ends), *reversed(ends), *ends]
    assert [entry.split()[1] for entry in counted] == ["a.wav", "a.wav", "b.wav", "b.wav"] * 2


def test_bench_reports_and_skips_what_cannot_be_read_or_answered(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deeper").mkdir()
    clip(tmp_path / "deeper" / "good.wav")
    clip(tmp_path / "mumble.wav")
    (tmp_path / "broken.wav").write_text("not audio")
    (tmp_path / "notes.txt").write_text("not a clip, not counted")
    scripted = lanes.load_lanes(None)
    monkeypatch.setattr(scripted["cascade"], "refuses", "mumble")
    _, result, said = bench(capsys, str(tmp_path))
    assert (result["clips"], result["skipped"]) == (1, 2)
    assert "broken.wav" in said
    assert "mumble.wav, cascade: No words" in said


def test_bench_takes_files_and_patterns_of_folders(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("set1/a.wav", "set2/b.wav", "c.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        clip(tmp_path / name)
    _, result, _ = bench(capsys, str(tmp_path / "set*"), str(tmp_path / "c.wav"), "--lane", "cascade")
    assert result["clips"] == 3


def test_bench_follows_the_manifest(tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    clip(tmp_path / "named.wav")
    clip(tmp_path / "other.wav")
    (tmp_path / "manifest.jsonl").write_text('{"audio": "named.wav", "text": "x"}\n\n')
    _, result, _ = bench(capsys, str(tmp_path), "--lane", "end-to-end")
    assert (result["clips"], list(result["lanes"]), result["ratio"]) == (1, ["end_to_end"], {})
    assert set(journal) == {"end_to_end named.wav"}


@pytest.mark.parametrize("content", [None, {}, {"x.wav": "not audio"}, {"manifest.jsonl": "{}"}])
def test_bench_without_clips_is_bad_input(
    tmp_path: Path, journal: list[str], capsys: pytest.CaptureFixture[str], content: dict[str, str] | None
) -> None:
    folder = tmp_path / "clips"
    if content is not None:
        folder.mkdir()
        for name, text in content.items():
            (folder / name).write_text(text)
    assert launch.main(["bench", str(folder)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.strip()


def test_bench_distrusts_a_clock_that_is_wrong(tmp_path: Path) -> None:
    boasting = {"cascade": ScriptedLane("cascade", [], 1000.0)}
    said: list[str] = []
    benchmark.measure(boasting, [Utterance(np.ones(16_000, np.float32))], report=said.append)
    assert any("do not trust" in message for message in said)


@pytest.mark.parametrize(("load", "warned"), [(None, False), (0.0, False), (64.0 * (os.cpu_count() or 1), True)])
def test_bench_warns_of_a_busy_machine(tmp_path: Path, load: float | None, warned: bool) -> None:
    text, result = benchmark.benchmark(
        {"cascade": ScriptedLane("cascade", [])}, [clip(tmp_path / "a.wav")], "scripted", load
    )
    assert ("busy" in text) is warned
    assert result["load_average"] == load
