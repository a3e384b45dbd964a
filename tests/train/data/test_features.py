"""The feature cache: its rows are the encoder's output, bad clips are counted, what changed is made anew and told."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from whisper.model import ModelDimensions, Whisper

from assistant.files import read_json_lines, write_json_lines
from assistant.model.speech_encoder import encode
from assistant.sound.audio import SAMPLE_RATE, load_utterance
from train.data import features
from train.data.features import FeatureCache
from train.data.manifest import write_manifest
from train.data.provenance import wanted_rows

WIDTH = 64
WORDS = ["one", "two", "three", "four", "five"]


@pytest.fixture
def whisper(monkeypatch: pytest.MonkeyPatch) -> Whisper:
    """A tiny random Whisper, already loaded by this process as by a worker."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = Whisper(ModelDimensions(80, 1500, WIDTH, 1, 1, 100, 8, WIDTH, 1, 1)).eval().requires_grad_(False)
    monkeypatch.setitem(features._worker, "model", model)
    monkeypatch.setattr(features, "load_whisper", lambda name: model)
    return model


@pytest.fixture
def clips(tmp_path: Path) -> list[dict[str, Any]]:
    """Five clips of growing length, each its own noise."""
    entries = []
    for n, word in enumerate(WORDS):
        audio = np.random.default_rng(n).uniform(-0.3, 0.3, int((0.5 + 0.2 * n) * SAMPLE_RATE))
        soundfile.write(tmp_path / f"{n}.flac", audio, SAMPLE_RATE)
        entries.append(
            {"audio": str(tmp_path / f"{n}.flac"), "text": word, "speaker": "s", "duration": 1.0, "source": "test"}
        )
    return entries


def job(path: Path, clips: list[dict[str, Any]], copy: int = 0, seed: int = 1) -> dict[str, Any]:
    rows = wanted_rows(clips, features._worker["model"], copy + 1, seed, features.CLEAN_SHARE)
    return {"path": path, "rows": rows[copy * len(clips) :]}


def encoded(*arguments: Any, **options: Any) -> tuple[int, list[str]]:
    """How many utterances a shard then holds, and why others were skipped."""
    skipped = [line.get("skipped") for line in features._encode_shard(job(*arguments, **options))]
    return skipped.count(None), [reason for reason in skipped if reason]


def direct(model: Whisper, clip: dict[str, Any]) -> torch.Tensor:
    return encode(model, load_utterance(clip["audio"]).resampled()).half()


def run(monkeypatch: pytest.MonkeyPatch, manifest: Path, out: Path, *options: str) -> None:
    """The command line, in this process so that it has the tiny model."""
    monkeypatch.setattr(features, "shared_out", lambda work, jobs, *more, **options: map(work, jobs))
    monkeypatch.setattr(sys, "argv", ["features", str(manifest), "--out", str(out), *options])
    features.main()


def test_cached_rows_are_the_encoders_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(features, "CLEAN_SHARE", 1.0)
    assert encoded(tmp_path / "0-0000.npy", clips) == (5, [])
    cache = FeatureCache([tmp_path])
    assert len(cache) == 5
    for n, clip in enumerate(clips):
        sample = cache[n]
        assert (sample.text, sample.source) == (clip["text"], "test")
        assert sample.features.dtype == torch.float16
        assert sample.features.shape == (int((0.5 + 0.2 * n) * 50), WIDTH)
        torch.testing.assert_close(sample.features, direct(whisper, clip), rtol=0, atol=0)


def test_augmentation_spares_a_share_of_the_first_copy_only(
    tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    many = clips[:1] * 40
    clean = {}
    for copy in (0, 1):
        (tmp_path / str(copy)).mkdir()
        encoded(tmp_path / str(copy) / "s.npy", many, copy)
        cache = FeatureCache([tmp_path / str(copy)])
        original = direct(whisper, clips[0])
        clean[copy] = sum(torch.equal(cache[n].features, original) for n in range(40))
    assert 8 <= clean[0] <= 24
    assert clean[1] == 0


def test_the_seed_decides_the_augmentation(tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        encoded(tmp_path / f"{name}.npy", clips, copy=1, seed=seed)
    first, again, other = ((tmp_path / f"{name}.npy").read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_unreadable_audio_is_skipped_and_counted_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(features, "CLEAN_SHARE", 1.0)
    Path(clips[1]["audio"]).write_text("not audio")
    Path(clips[2]["audio"]).unlink()
    count, reasons = encoded(tmp_path / "s.npy", clips)
    assert count == 3
    assert len(reasons) == 2
    assert "1.flac" in reasons[0]
    assert "2.flac does not exist" in reasons[1]
    cache = FeatureCache([tmp_path])
    assert [entry["text"] for entry in cache.entries] == ["one", "four", "five"]
    torch.testing.assert_close(cache[1].features, direct(whisper, clips[3]), rtol=0, atol=0)


def test_a_shard_without_one_readable_clip_does_no_harm(
    tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    broken = [{**clip, "audio": str(tmp_path / "missing.flac")} for clip in clips]
    count, reasons = encoded(tmp_path / "a.npy", broken)
    assert (count, len(reasons)) == (0, 5)
    with pytest.raises(ValueError, match=r"train\.data\.features"):
        FeatureCache([tmp_path])
    encoded(tmp_path / "b.npy", clips)
    assert len(FeatureCache([tmp_path])) == 5


def test_the_command_caches_every_copy_and_counts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    whisper: Whisper,
    clips: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path(clips[4]["audio"]).write_text("not audio")
    more = [{**clips[0], "text": None}, {**clips[0], "text": ""}, {**clips[0], "text": "", "source": "no-speech"}]
    write_manifest(tmp_path / "manifest.jsonl", [*clips, *more])
    monkeypatch.setattr(features, "SHARD", 2)
    run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out", "--copies", "2")
    assert "10 utterances cached, 2 skipped." in (shown := capsys.readouterr().out)
    assert "4.flac" in shown
    entries = FeatureCache([tmp_path / "out"]).entries
    assert sorted(entry["text"] for entry in entries) == sorted(2 * [*WORDS[:4], ""])
    assert len(list((tmp_path / "out").glob("*.npy"))) == 6

    files = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()}
    run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out", "--copies", "2")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").iterdir()} == files
    assert capsys.readouterr().out == shown  # what was skipped is still told


def test_held_out_speech_is_never_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper) -> None:
    folder = tmp_path / "dev" / "librispeech"
    folder.mkdir(parents=True)
    (folder / "manifest.jsonl").write_text(json.dumps({"audio": "a.flac", "text": "a"}) + "\n")
    with pytest.raises(SystemExit, match="held out"):
        run(monkeypatch, folder / "manifest.jsonl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_caches_are_read_as_one(tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]) -> None:
    for name, part in (("a", clips[:2]), ("b", clips[2:])):
        (tmp_path / name).mkdir()
        encoded(tmp_path / name / "0-0000.npy", part)
    cache = FeatureCache([tmp_path / "a", tmp_path / "b"])
    assert [cache[n].text for n in range(len(cache))] == WORDS


# What changed since -----------------------------------------------------------------------------------------------


@pytest.fixture
def made(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    whisper: Whisper,
    clips: list[dict[str, Any]],
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[list[str], int, str]]:
    """Two copies of the five clips are cached, two to a shard. Called: the manifest's entries are changed and the
    command given again; which texts the cache has, how many clips were encoded, and what was told."""
    monkeypatch.setattr(features, "SHARD", 2)
    write_manifest(tmp_path / "manifest.jsonl", clips)
    run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out", "--copies", "2")
    calls: list[str] = []
    monkeypatch.setattr(features, "encode", lambda model, samples: calls.append("") or encode(model, samples))

    def again(entries: list[dict[str, Any]], *options: str) -> tuple[list[str], int, str]:
        calls.clear()
        capsys.readouterr()
        write_manifest(tmp_path / "manifest.jsonl", entries)
        run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out", *(options or ("--copies", "2")))
        cache, told = FeatureCache([tmp_path / "out"]), capsys.readouterr().out
        encoded = len(calls)
        for entry, sample in zip(cache.entries, cache, strict=False):
            assert sample.text == entry["text"] and len(sample.features) == entry["frames"]
        calls.clear()
        capsys.readouterr()
        run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out", *(options or ("--copies", "2")))
        assert not calls and "anew" not in capsys.readouterr().out  # and then it is as it should be
        return sorted(entry["text"] for entry in cache.entries), encoded, told

    return again


def twice(*texts: str) -> list[str]:
    return sorted([*texts, *texts])


def test_another_recording_under_the_same_name_is_encoded_anew(
    made: Callable[..., Any], tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    shutil.copy(clips[4]["audio"], clips[1]["audio"])
    texts, encoded, told = made(clips)
    assert (texts, encoded) == (twice(*WORDS), 2)
    assert "2 clips are made anew: the recording changed." in told
    frames = {entry["frames"] for entry in FeatureCache([tmp_path / "out"]).entries if entry["text"] == "two"}
    assert max(frames) > 55  # of the fifth clip's 65, be it said faster, not of the second's 35


def test_another_text_is_the_label_then_and_nothing_is_encoded(
    made: Callable[..., Any], clips: list[dict[str, Any]]
) -> None:
    texts, encoded, told = made([{**clips[0], "text": "won"}, *clips[1:]])
    assert (texts, encoded) == (twice("won", *WORDS[1:]), 0)
    assert "2 clips are labelled anew: their text changed." in told


def test_a_clip_that_is_gone_leaves_and_the_others_stay(made: Callable[..., Any], clips: list[dict[str, Any]]) -> None:
    texts, encoded, told = made(clips[1:])
    assert (texts, encoded) == (twice(*WORDS[1:]), 0)
    assert "2 clips are left out: the manifest has them no longer." in told


def test_a_clip_that_is_added_in_front_or_moved_is_all_that_is_encoded(
    made: Callable[..., Any], tmp_path: Path, clips: list[dict[str, Any]]
) -> None:
    soundfile.write(tmp_path / "new.flac", np.random.default_rng(9).uniform(-0.3, 0.3, 12_000), SAMPLE_RATE)
    new = {**clips[0], "audio": str(tmp_path / "new.flac"), "text": "zero"}
    (tmp_path / "elsewhere").mkdir()
    moved = {**clips[4], "audio": str(shutil.move(clips[4]["audio"], tmp_path / "elsewhere" / "e.flac"))}
    texts, encoded, told = made([new, moved, *clips[:4]])
    assert (texts, encoded) == (twice("zero", *WORDS), 2)
    assert "anew" not in told


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("seed", "another seed was asked for (1 before)"),
        ("whisper", "another Whisper"),
        ("share", "the augmentation changed"),
    ],
)
def test_another_seed_whisper_or_augmentation_makes_all_anew(
    monkeypatch: pytest.MonkeyPatch,
    made: Callable[..., Any],
    whisper: Whisper,
    clips: list[dict[str, Any]],
    change: str,
    said: str,
) -> None:
    options = ["--copies", "2"]
    if change == "seed":
        options += ["--seed", "2"]
    elif change == "whisper":
        whisper.encoder.conv1.bias.add_(1)
    else:
        monkeypatch.setattr(features, "CLEAN_SHARE", 0.9)
    texts, encoded, told = made(clips, *options)
    assert (texts, encoded) == (twice(*WORDS), 10)
    assert "10 clips are made anew: " + said in told


def test_more_and_fewer_copies_change_only_those(made: Callable[..., Any], clips: list[dict[str, Any]]) -> None:
    assert made(clips, "--copies", "3")[:2] == (sorted([*twice(*WORDS), *WORDS]), 5)
    texts, encoded, told = made(clips, "--copies", "1")
    assert (texts, encoded) == (sorted(WORDS), 0) and "10 clips are left out: fewer copies are wanted." in told


def test_a_cache_that_does_not_say_what_it_was_made_from_is_made_anew(
    made: Callable[..., Any], tmp_path: Path, clips: list[dict[str, Any]]
) -> None:
    for index in (tmp_path / "out").glob("*.jsonl"):
        old = [{name: row[name] for name in ("start", "frames", "text", "source")} for row in read_json_lines(index)]
        write_json_lines(index, old)
    texts, encoded, told = made(clips)
    assert (texts, encoded) == (twice(*WORDS), 10) and "nothing says what they were made from" in told


@pytest.mark.parametrize("damage", ["array cut off", "array gone", "index torn", "zeros"])
def test_a_damaged_shard_is_said_in_training_and_made_anew(
    made: Callable[..., Any], tmp_path: Path, clips: list[dict[str, Any]], damage: str
) -> None:
    array, index = (tmp_path / "out" / f"0-0000.{ending}" for ending in ("npy", "jsonl"))
    if damage == "array cut off":
        array.write_bytes(array.read_bytes()[:-100])
    elif damage == "array gone":
        array.unlink()
    elif damage == "zeros":
        array.write_bytes(b"\0" * 4000)
    else:
        index.write_bytes(index.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"0-0000\."):
        FeatureCache([tmp_path / "out"])
    texts, encoded, told = made(clips)
    assert (texts, encoded) == (twice(*WORDS), 2) and "damaged" in told


def test_features_that_are_not_finite_are_skipped_with_the_clips_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    original = features.encode

    def encode_loud(model: Whisper, samples: np.ndarray) -> torch.Tensor:
        return original(model, samples) * (1e9 if len(samples) == int(0.7 * SAMPLE_RATE) else 1)

    monkeypatch.setattr(features, "encode", encode_loud)
    monkeypatch.setattr(features, "CLEAN_SHARE", 1.0)
    count, reasons = encoded(tmp_path / "s.npy", clips)
    assert count == 4 and reasons == ["1.flac: the encoder's output is not finite."]


def test_caches_of_different_whispers_are_not_mixed(tmp_path: Path) -> None:
    for name, width in (("a", 64), ("b", 32)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0-0000.npy", np.zeros((9, width), np.float16))
        write_json_lines(tmp_path / name / "0-0000.jsonl", [{"start": 0, "frames": 9, "text": "a", "source": "t"}])
    with pytest.raises(ValueError, match=r"different Whispers.*64 wide.*32 wide"):
        FeatureCache([tmp_path / "a", tmp_path / "b"])


def test_a_manifest_without_texts_is_said_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    write_manifest(tmp_path / "manifest.jsonl", [{**clip, "text": None} for clip in clips])
    with pytest.raises(SystemExit, match=r"None of the 5 entries .* has a text"):
        run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out")
