"""Recordings as recorders, telephones and `cat` leave them: all that can be decoded is heard, whatever headers say."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr

from assistant.files import SAMPLES
from assistant.sound.audio import AudioError, load_audio, load_utterance
from assistant.sound.decoding import joined

SPEECH, RATE = soundfile.read(SAMPLES / "capital.flac", dtype="float32")
SECONDS = len(SPEECH) / RATE
KINDS = {  # codec, rate
    "wav": ("pcm_s16le", 16_000),
    "aiff": ("pcm_s16be", 22_050),
    "au": ("pcm_s16be", 8_000),
    "caf": ("pcm_s16le", 44_100),
    "w64": ("pcm_s24le", 48_000),
    "flac": ("flac", 16_000),
    "mp3": ("libmp3lame", 44_100),
    "adts": ("aac", 44_100),
    "ogg": ("libopus", 48_000),
    "webm": ("libopus", 48_000),
    "matroska": ("flac", 16_000),
    "ipod": ("aac", 48_000),
    "mp4": ("alac", 44_100),
    "mpegts": ("aac", 48_000),
    "avi": ("aac", 48_000),
}


def encoded(container: str, codec: str = "", rate: int = 0, start: float = 0.0, layout: str = "mono") -> bytes:
    """The question in a container, its clock beginning at `start` seconds."""
    codec, rate = codec or KINDS[container][0], rate or KINDS[container][1]
    signal = soxr.resample(SPEECH, RATE, rate).astype(np.float32)
    data = np.repeat(signal, av.AudioLayout(layout).nb_channels)[None]  # packed: PyAV fails at eight planes
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(data, format="flt", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), int(start * rate)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for piece in resampler.resample(frame):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return file.getvalue()


def seconds(data: bytes) -> float:
    samples, rate = load_audio(data)
    return len(samples) / rate


@pytest.mark.parametrize("kind", KINDS)
def test_every_container_is_heard_and_two_of_them_twice(kind: str) -> None:
    data = encoded(kind)
    assert seconds(data) == pytest.approx(SECONDS, abs=0.1)
    assert seconds(data + data) == pytest.approx(2 * SECONDS, abs=0.2)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1"])
@pytest.mark.parametrize("kind, codec", [("adts", "aac"), ("flac", "flac"), ("wav", "pcm_f32le"), ("mp4", "aac")])
def test_all_channels_of_a_room_are_heard(kind: str, codec: str, layout: str) -> None:
    assert seconds(encoded(kind, codec, 48_000, layout=layout)) == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize(
    "first, second",
    [
        (encoded("adts", rate=44_100), encoded("adts", rate=48_000)),
        (encoded("adts"), encoded("adts", layout="stereo")),
        (encoded("mp3"), encoded("mp3", rate=16_000)),
        (encoded("mp3"), encoded("mp3", layout="stereo")),
        (encoded("ogg"), encoded("ogg", layout="stereo")),
        (encoded("ogg"), encoded("ogg", codec="flac", rate=16_000)),
        (encoded("flac"), encoded("flac", rate=48_000, layout="stereo")),
        (encoded("wav"), encoded("wav", codec="pcm_f32le", rate=48_000)),
        (encoded("webm"), encoded("ipod")),
        (encoded("mp3"), encoded("wav")),
    ],
)
def test_another_rate_channel_or_codec_in_mid_stream_is_heard(first: bytes, second: bytes) -> None:
    samples, rate = load_audio(first + second)
    assert len(samples) / rate == pytest.approx(2 * SECONDS, abs=0.2)
    halves = [samples[: len(samples) // 2], samples[len(samples) // 2 :]]
    loud = [float(np.sqrt(np.mean(half**2))) for half in halves]
    assert loud[0] == pytest.approx(loud[1], rel=0.2)


def test_streams_that_run_side_by_side_are_one_recording() -> None:
    pages = encoded("ogg")
    beginning = b"OggS\0\2" + bytes(20) + b"\1\x08" + b"fishead\0"  # of a second stream, as a video has it
    assert len(joined(beginning + pages)) == 1
    assert len(joined(pages)) == 1
    assert len(joined(pages + pages)) == 2


@pytest.mark.parametrize("start", [200.0, 1e5, 0.5])
@pytest.mark.parametrize("kind", ["webm", "matroska", "mpegts"])
def test_clocks_that_do_not_begin_at_zero(kind: str, start: float) -> None:
    assert seconds(encoded(kind, start=start)) == pytest.approx(SECONDS, abs=0.1)


def with_size(size: int | None, more: bytes = b"") -> bytes:
    """A WAV with another size of its sound in the header; None leaves the right one."""
    data = encoded("wav")
    place = data.find(b"data") + 4
    return data if size is None else data[:place] + struct.pack("<I", size) + data[place + 4 :] + more


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x80000000, 0x7FFFFFF0, 16_000, 16_001, 2])
def test_a_wav_whose_recorder_did_not_write_the_size(size: int) -> None:
    assert seconds(with_size(size)) == pytest.approx(SECONDS, abs=0.01)


def test_what_follows_the_sound_of_a_wav_is_no_sound() -> None:
    data = encoded("wav")
    for more in (b"LIST" + struct.pack("<I", 4000) + bytes(4000), b"id3 " + struct.pack("<I", 3000) + bytes(3000)):
        assert seconds(data + more) == pytest.approx(SECONDS, abs=0.01)


def test_a_flac_of_unknown_length() -> None:
    data = bytearray(encoded("flac"))
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    assert seconds(bytes(data)) == pytest.approx(SECONDS, abs=0.01)


@pytest.mark.parametrize("claimed", [1, 2**36 - 1])
def test_a_flac_that_claims_another_length(claimed: int) -> None:
    data = bytearray(encoded("flac"))
    data[21] = data[21] & 0xF0 | claimed >> 32
    data[22:26] = struct.pack(">I", claimed & 0xFFFFFFFF)
    assert seconds(bytes(data)) == pytest.approx(SECONDS, abs=0.01)


@pytest.mark.parametrize(
    "harm", [lambda data: data[: len(data) // 2], lambda data: data[:3000] + bytes(300) + data[3300:]]
)
@pytest.mark.parametrize("kind", ["mp3", "adts", "ogg", "flac", "wav"])
def test_what_is_left_of_a_damaged_recording_is_heard(kind: str, harm: Callable[[bytes], bytes]) -> None:
    assert seconds(harm(encoded(kind))) > 0.3 * SECONDS


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {path}\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
        "This is not audio. " * 1000,
    ],
)
def test_a_list_that_names_other_files_opens_none(tmp_path: Path, text: str) -> None:
    other = tmp_path / "other.wav"
    other.write_bytes(encoded("wav"))
    for name in ("list.wav", "list.m3u8", "list.mp3"):
        (tmp_path / name).write_text(text.format(path=other))
        with pytest.raises(AudioError, match="not audio"):
            load_utterance(tmp_path / name)


def test_rates_that_no_microphone_has_are_refused() -> None:
    data = bytearray(encoded("wav"))
    data[24:28] = struct.pack("<I", 3_000_000_000)
    with pytest.raises(AudioError, match="not audio"):
        load_audio(bytes(data))
