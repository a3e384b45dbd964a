"""Folders as people have them: recordings of every kind beside their texts, and manifests written on any system."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from train.data.manifest import read_manifest
from train.data.utterances import read_utterances

CODECS = {"m4a": "aac", "M4A": "aac", "webm": "libopus", "mp4": "aac", "aac": "aac", "mka": "flac", "mp3": "mp3"}


def record(path: Path, codec: str | None = None) -> None:
    samples = (0.3 * np.sin(np.arange(48_000) / 20)).astype(np.float32)
    if codec is None:
        return soundfile.write(path, samples, 48_000)
    formats = {"m4a": "mp4", "aac": "adts", "mka": "matroska"}
    ending = path.suffix[1:].lower()
    with av.open(str(path), "w", format=formats.get(ending, ending)) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        size = stream.codec_context.frame_size or 1024
        for start in range(0, len(samples) - size, size):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], "fltp", "mono")
            if codec in ("flac", "libopus"):
                frame = av.AudioFrame.from_ndarray(
                    (samples[None, start : start + size] * 3e4).astype(np.int16), "s16", "mono"
                )
            frame.rate, frame.pts = 48_000, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return None


def test_recordings_of_every_kind_have_the_text_beside_them(tmp_path: Path) -> None:
    for ending, codec in CODECS.items():
        record(tmp_path / f"{ending}-clip.{ending}", codec)
        (tmp_path / f"{ending}-clip.txt").write_bytes(b"\xef\xbb\xbfGood\r\nmorning \r\n")
    for ending in ("WAV", "flac", "ogg", "AIFF"):
        record(tmp_path / f"{ending}-clip.{ending}")
        (tmp_path / f"{ending}-clip.TXT").write_bytes(b"Good morning")
    (tmp_path / "._m4a-clip.m4a").write_bytes(b"of a Mac")
    (tmp_path / "Thumbs.db").write_bytes(b"of Windows")
    found = list(read_utterances(str(tmp_path), tmp_path / "store"))
    assert [Path(entry["audio"]).suffix[1:] for entry in found if entry["text"] != "Good morning"] == []
    assert len(found) == len(CODECS) + 4
    assert all(entry["duration"] == pytest.approx(1, abs=0.1) for entry in found)


def test_a_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    record(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_text("good morning", "utf-16")
    with pytest.raises(ValueError, match=r"a\.txt, line 1 is no text in UTF-8 but in UTF-16"):
        list(read_utterances(str(tmp_path), tmp_path / "store"))


def test_a_manifest_of_another_system_that_says_little_is_read(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    record(tmp_path / "clips" / "a.wav")
    line = b'{"audio": "clips\\\\a.wav", "text": "hello"}'
    (tmp_path / "manifest.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n")
    (entry,) = read_manifest(tmp_path)
    assert Path(entry["audio"]).exists() and entry["text"] == "hello"
    assert (entry["speaker"], entry["duration"], entry["source"]) == (None, None, tmp_path.name)
