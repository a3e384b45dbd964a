"""Every kind of recording a person may bring: answered, or refused with a sentence that says what to do."""

import tracemalloc
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from assistant.files import SAMPLES
from assistant.sound.audio import SAMPLE_RATE, AudioError, LiveResampler, load_utterance, log_mel, prepare

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


@pytest.mark.parametrize("broken", [1e6, -50.0, np.nan, np.inf, -np.inf, 3e38])
@pytest.mark.parametrize("places", [[5_000], [0], [15_999], [10, 7_000, 7_001, 15_000], list(range(4_000, 4_100))])
def test_a_few_broken_samples_do_not_silence_the_rest(broken: float, places: list[int]) -> None:
    samples = tone(1)
    samples[places] = broken
    mended = prepare(samples, 16_000).samples
    assert np.abs(mended).max() < 0.31
    sound = np.setdiff1d(np.arange(16_000), places)
    assert np.array_equal(mended[sound], tone(1)[sound])


def test_floats_on_the_scale_of_integers_are_sound_and_not_broken() -> None:
    speech, _ = soundfile.read(JFK, dtype="float32")
    gated = np.where(np.abs(speech) < 0.02, 0, speech) * 32_768
    assert np.abs(prepare(gated, 16_000).samples - gated / np.abs(gated).max()).max() < 1e-6


@pytest.mark.parametrize("second", [-1.0, -0.6, 1.0, 0.0, np.nan])
def test_channels_never_cancel_each_other(second: float) -> None:
    speech, _ = soundfile.read(JFK, dtype="float32")
    for channels in ((speech, second * speech), (second * speech, speech), (speech, second * speech, 0 * speech)):
        mixed = prepare(np.stack(channels, axis=1).astype(np.float32), 16_000).samples
        alike = np.corrcoef(mixed, speech)[0, 1]
        assert abs(alike) > 0.99
        assert np.abs(mixed).max() > 0.3 * np.abs(speech).max()


def test_a_speaker_on_reversed_channels_is_heard_beside_one_on_straight_ones() -> None:
    """Two people in turn; the second reaches the two channels with opposite signs."""
    speech, _ = soundfile.read(JFK, dtype="float32")
    stereo = np.stack([np.r_[speech, speech], np.r_[speech, -speech]], axis=1)
    utterance = prepare(stereo, 16_000)
    live = LiveResampler(16_000)
    parts = [live.feed(stereo[start : start + 480]) for start in range(0, len(stereo), 480)]
    for mixed in (utterance.samples, np.concatenate(parts)):
        first, second = np.abs(mixed[: len(speech)]).mean(), np.abs(mixed[-len(speech) :]).mean()
        assert second > 0.9 * first


@pytest.mark.parametrize("broken", [1e6, np.nan, np.inf])
def test_a_broken_sample_on_the_live_line_is_a_click(broken: float) -> None:
    samples = np.stack([tone(1), tone(1)], axis=1)
    samples[3_000] = broken
    live = LiveResampler(16_000)
    heard = np.concatenate([live.feed(samples[start : start + 512]) for start in range(0, len(samples), 512)])
    assert np.abs(heard).max() <= 1
    assert np.abs(heard[4_000:] - tone(1)[4_000 : len(heard)]).max() < 1e-6


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
        (np.r_[tone(1), np.full(20_000, np.inf)].astype(np.float32), "not numbers"),
        (np.zeros((16_000, 0), np.float32), "channels"),
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
