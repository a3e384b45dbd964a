"""Every kind of recording a person may bring: answered, or refused with a sentence that says what to do."""

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from assistant.files import SAMPLES
from assistant.sound.audio import SAMPLE_RATE, AudioError, load_utterance, log_mel, prepare

JFK = SAMPLES / "jfk.flac"


def tone(seconds: float, rate: int = 16_000) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * 220 * np.arange(int(seconds * rate)) / rate).astype(np.float32)


def test_a_real_clip_keeps_its_length_and_level() -> None:
    utterance = load_utterance(JFK)
    assert utterance.duration == pytest.approx(11.0, abs=0.05)
    assert utterance.resampled().dtype == np.float32
    assert 0.1 < np.abs(utterance.samples).max() <= 1


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW"])
def test_sample_widths_sound_the_same(tmp_path: Path, subtype: str) -> None:
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(1), 16_000, subtype=subtype)
    assert np.abs(load_utterance(path).resampled() - tone(1)).max() < 0.03


def test_stereo_48_khz_becomes_mono_16_khz(tmp_path: Path) -> None:
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([tone(1, 48_000), 0 * tone(1, 48_000)], axis=1), 48_000)
    samples = load_utterance(path).resampled()
    assert samples.shape == (16_000,)
    middle = slice(1000, 15_000)  # the resampler's filter rings at both ends
    assert np.abs(samples - tone(1) / 2)[middle].max() < 0.01


@pytest.mark.parametrize("container, codec", [("mp4", "aac"), ("webm", "libopus")])
def test_phone_and_browser_recordings_are_read(tmp_path: Path, container: str, codec: str) -> None:
    path = tmp_path / f"recording.{container}"
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1, 48_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 48_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    assert load_utterance(path).duration == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("samples", [np.int16([0, 8000, -8000] * 8000), np.uint8([128, 190, 66] * 8000)])
def test_integer_samples_are_scaled(samples: np.ndarray) -> None:
    assert 0.2 < np.abs(prepare(samples, 16_000).samples).max() < 0.6


def test_samples_beyond_full_scale_are_scaled_down_not_clipped() -> None:
    assert np.abs(prepare(10 * tone(1), 16_000).samples).max() == pytest.approx(1)


@pytest.mark.parametrize(
    "samples, words",
    [
        (np.zeros(16_000, np.float32), "silent"),
        (tone(0.1), "too short"),
        (np.zeros(0, np.float32), "too short"),
        (tone(130), "too long"),
        (np.full(16_000, np.nan, np.float32), "not numbers"),
        (np.r_[tone(1), np.inf].astype(np.float32), "not numbers"),
        (np.zeros((2, 2, 8000), np.float32), "channels"),
    ],
)
def test_bad_samples_are_refused_in_words(samples: np.ndarray, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        prepare(samples, 16_000)


def test_bad_files_are_refused_in_words(tmp_path: Path) -> None:
    empty, text, directory = tmp_path / "empty.wav", tmp_path / "text.wav", tmp_path / "folder.wav"
    words_only = tmp_path / "words.flac"
    words_only.write_text("nonsense\n")
    empty.write_bytes(b"")
    text.write_text("This is not audio. " * 100)
    directory.mkdir()
    for path, words in [
        (empty, "empty"),
        (text, "not audio"),
        (words_only, "not audio"),
        (directory, "not a file"),
        (tmp_path / "missing.wav", "does not exist"),
    ]:
        with pytest.raises(AudioError, match=words):
            load_utterance(path)


def test_a_truncated_recording_is_answered_or_refused_but_never_crashes(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    path.write_bytes(JFK.read_bytes()[:20_000])
    try:
        assert load_utterance(path).duration < 11
    except AudioError as error:
        assert "cut.flac" in str(error)


def test_log_mel_has_a_hundred_frames_a_second() -> None:
    assert log_mel(tone(2), 80).shape == (80, 200)


@pytest.mark.parametrize("ending", ["flac", "mp4"])
def test_hours_in_a_small_file_are_refused_before_they_are_decoded(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"hours.{ending}"
    codec, form, silence = (
        ("flac", "s16", np.zeros((1, SAMPLE_RATE * 10), np.int16))
        if ending == "flac"
        else ("aac", "fltp", np.zeros((1, SAMPLE_RATE * 10), np.float32))
    )
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="mono")
        for _ in range(90):  # fifteen minutes: 58 MB once decoded
            frame = av.AudioFrame.from_ndarray(silence, format=form, layout="mono")
            frame.sample_rate = SAMPLE_RATE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="too long"):
            load_utterance(path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
