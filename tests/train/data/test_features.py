"""The feature cache: its rows are the encoder's output, bad clips are counted, finished shards are left alone."""

import json
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from whisper.model import ModelDimensions, Whisper

from assistant.model.speech_encoder import encode
from assistant.sound.audio import SAMPLE_RATE, load_utterance
from train.data import features
from train.data.features import FeatureCache
from train.data.manifest import write_manifest

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
    return {"path": path, "entries": list(enumerate(clips)), "copy": copy, "seed": seed}


def direct(model: Whisper, clip: dict[str, Any]) -> torch.Tensor:
    return encode(model, load_utterance(clip["audio"]).resampled()).half()


def run(monkeypatch: pytest.MonkeyPatch, manifest: Path, out: Path, *options: str) -> None:
    """The command line, with threads for processes so that they share the tiny model."""
    monkeypatch.setattr(features.multiprocessing, "get_context", lambda method: SimpleNamespace(Pool=ThreadPool))
    monkeypatch.setattr(sys, "argv", ["features", str(manifest), "--out", str(out), "--processes", "1", *options])
    features.main()


def test_cached_rows_are_the_encoders_output(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(features, "CLEAN_SHARE", 1.0)
    assert features._encode_shard(job(tmp_path / "0-0000.npy", clips)) == (5, [])
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
        features._encode_shard(job(tmp_path / str(copy) / "s.npy", many, copy))
        cache = FeatureCache([tmp_path / str(copy)])
        original = direct(whisper, clips[0])
        clean[copy] = sum(torch.equal(cache[n].features, original) for n in range(40))
    assert 8 <= clean[0] <= 24
    assert clean[1] == 0


def test_the_seed_decides_the_augmentation(tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]) -> None:
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        features._encode_shard(job(tmp_path / f"{name}.npy", clips, copy=1, seed=seed))
    first, again, other = ((tmp_path / f"{name}.npy").read_bytes() for name in ("first", "again", "other"))
    assert first == again
    assert first != other


def test_unreadable_audio_is_skipped_and_counted_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(features, "CLEAN_SHARE", 1.0)
    Path(clips[1]["audio"]).write_text("not audio")
    Path(clips[2]["audio"]).unlink()
    count, reasons = features._encode_shard(job(tmp_path / "s.npy", clips))
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
    count, reasons = features._encode_shard(job(tmp_path / "a.npy", broken))
    assert (count, len(reasons)) == (0, 5)
    with pytest.raises(ValueError, match=r"train\.data\.features"):
        FeatureCache([tmp_path])
    features._encode_shard(job(tmp_path / "b.npy", clips))
    assert len(FeatureCache([tmp_path])) == 5


def test_a_finished_shard_is_not_computed_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    path = tmp_path / "s.npy"
    features._encode_shard(job(path, clips))
    before = {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.glob("s.*")}
    monkeypatch.delitem(features._worker, "model")
    assert features._encode_shard(job(path, clips)) == (5, [])
    assert {file: (file.stat().st_mtime_ns, file.read_bytes()) for file in tmp_path.glob("s.*")} == before


def test_a_shard_without_an_index_is_computed_again(
    tmp_path: Path, whisper: Whisper, clips: list[dict[str, Any]]
) -> None:
    path = tmp_path / "s.npy"
    features._encode_shard(job(path, clips))
    array, index = path.read_bytes(), path.with_suffix(".jsonl").read_text("utf-8")
    path.write_bytes(array[: len(array) // 2])  # killed while it wrote
    path.with_suffix(".jsonl").unlink()
    assert features._encode_shard(job(path, clips)) == (5, [])
    assert path.read_bytes() == array
    assert path.with_suffix(".jsonl").read_text("utf-8") == index
    assert not list(tmp_path.glob("*.partial*"))


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

    arrays = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.npy")}
    run(monkeypatch, tmp_path / "manifest.jsonl", tmp_path / "out", "--copies", "2")
    assert {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("*.npy")} == arrays


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
        features._encode_shard(job(tmp_path / name / "0-0000.npy", part))
    cache = FeatureCache([tmp_path / "a", tmp_path / "b"])
    assert [cache[n].text for n in range(len(cache))] == WORDS
