"""The clips of an evaluation: the same every time, only from what is held out, real and spoken ones apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from assistant.files import SAMPLES
from assistant.sound.audio import AudioError, load_utterance
from train.data.manifest import held_out, read_manifest, write_manifest
from train.questions.clips import CONDITIONS, evaluation_clips
from train.questions.sounds import SOUNDS
from train.synthesis.engines import available

PAIRS = [(f"This is sentence number {number}.", f"这是第{number}句。") for number in range(400)]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The layout of the data folder: real clips as LibriSpeech's, and a little text."""
    folder = tmp_path / "data"
    speech = folder / "speech" / "dev" / "librispeech"
    speech.mkdir(parents=True)
    real = [entry for entry in read_manifest(SAMPLES / "manifest.jsonl") if entry["voice"] == "real"][:3]
    for entry in real:
        shutil.copy(entry["audio"], speech)
    write_manifest(
        speech / "manifest.jsonl",
        ({**entry, "audio": str(speech / Path(entry["audio"]).name)} for entry in real),
    )
    text = folder / "text"
    text.mkdir()
    intents = [{"text": f"do thing number {n}", "intent": f"DoThing{n}"} for n in range(8)]
    (text / "snips_val.jsonl").write_text(
        "\n".join(map(json.dumps, [*intents, {"text": "x", "intent": "oos"}])), "utf-8"
    )
    questions = [{"question": english, "answers": ["a"]} for english, _ in PAIRS]
    (text / "nq_open.jsonl").write_text("\n".join(map(json.dumps, questions)), "utf-8")
    return folder


def test_real_clips_as_they_are_and_bundled_ones_only_once(data: Path, tmp_path: Path) -> None:
    clips, missing = evaluation_clips(data, tmp_path / "out", ["librispeech", "samples", "jfk"], None)
    assert len(clips["librispeech"]) == 3 and all(clip.voice == "real" for clip in clips["librispeech"])
    known = {clip.text for clip in clips["librispeech"]}
    assert {clip.voice for clip in clips["samples"]} == {"real", "synthetic"}
    assert known.isdisjoint(clip.text for clip in clips["samples"])
    assert "jfk" not in clips and any(sentence.startswith("jfk: ") for sentence in missing)


def test_spoken_sets_are_the_same_every_time_and_the_limit_takes_the_first(data: Path, tmp_path: Path) -> None:
    first, _ = evaluation_clips(data, tmp_path / "one", ["snips"], 3)
    again, _ = evaluation_clips(data, tmp_path / "two", ["snips"], 2)
    assert [clip.text for clip in again["snips"]] == [clip.text for clip in first["snips"]][:2]
    for clip, other in zip(first["snips"], again["snips"], strict=False):
        assert np.array_equal(soundfile.read(clip.audio)[0], soundfile.read(other.audio)[0])
        assert clip.facts == other.facts and clip.voice == "synthetic"
        assert clip.facts["intent"] in clip.facts["choices"] and len(set(clip.facts["choices"])) == 5
        assert clip.facts["intent"].startswith("do thing") and "oos" not in clip.facts["choices"]
    assert [entry["text"] for entry in read_manifest(tmp_path / "one" / "snips" / "manifest.jsonl")] == [
        clip.text for clip in first["snips"]
    ]


def test_text_that_is_trained_on_gives_its_held_out_part_only(data: Path, tmp_path: Path) -> None:
    clips, missing = evaluation_clips(data, tmp_path, ["natural questions"], None)
    assert 0 < len(clips["natural questions"]) == sum(held_out(english) for english, _ in PAIRS)
    assert all(held_out(clip.text) for clip in clips["natural questions"])
    assert any("fewer clips" in sentence for sentence in missing)


@pytest.mark.skipif(not available("espeak"), reason="espeak-ng is not installed")
def test_two_languages_in_one_clip(data: Path, tmp_path: Path) -> None:
    clips, missing = evaluation_clips(data, tmp_path, ["code-switched"], 2)
    assert len(clips["code-switched"]) == 2 and not missing
    for clip in clips["code-switched"]:
        assert load_utterance(clip.audio).duration > 0.8


def test_no_speech_of_every_kind(data: Path, tmp_path: Path) -> None:
    clips, _ = evaluation_clips(data, tmp_path, ["no speech"], None)
    assert {clip.facts["sound"] for clip in clips["no speech"]} == set(SOUNDS)
    for clip in clips["no speech"]:
        assert clip.text == ""
        if clip.facts["sound"] == "silence":
            with pytest.raises(AudioError, match="silent"):
                load_utterance(clip.audio)
        else:
            assert 1.9 < load_utterance(clip.audio).duration < 4.1


def test_conditions_are_applied_to_the_same_clips(data: Path, tmp_path: Path) -> None:
    clips, _ = evaluation_clips(data, tmp_path, ["clean", *CONDITIONS], 2)
    clean = clips["clean"]
    for name, changed in clips.items():
        assert [clip.facts["of"] for clip in changed] == [clip.facts["of"] for clip in clean], name
    for clip, noisy in zip(clean, clips["noise, 10 dB"], strict=True):
        before, after = (load_utterance(each.audio).resampled() for each in (clip, noisy))
        scale = (before @ after) / (before @ before)  # a loud clip was turned down
        noise = after - scale * before
        assert 10 * np.log10(((scale * before) ** 2).mean() / (noise**2).mean()) == pytest.approx(10, abs=0.5)
