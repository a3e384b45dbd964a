"""Recordings are opened by whatever name they have: protocols, patterns, options and other scripts are names, too."""

import os
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from assistant.sound.audio import SAMPLE_RATE, AudioError, load_utterance

NAMES = [
    "12:30 memo.m4a",
    "concat:x",
    "pipe:0",
    "http:x.wav",
    "file:a.wav",
    "data:audio,x.wav",
    "subfile,,start,0,end,9,,:x.wav",
    "-",
    "--json",
    "%d.wav",
    "%03d.m4a",
    "*.wav",
    "take[1]?.flac",
    "a|b;c&d $HOME `x`.ogg",
    'it\'s "here".mp3',
    "two\nlines.wav",
    "bell\x07\x1b[2J.m4a",
    "会议 10:15.m4a",
    "مذكرة.wav",
    "👂🏽.flac",
    "~",
    " .wav ",
    "x" * 250 + ".wav",
    "no ending",
    "wrong ending.txt",
]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")


@pytest.fixture(scope="module")
def recordings() -> dict[str, bytes]:
    """A second of sound as libsndfile reads it and as only PyAV does."""
    import io

    sound = (0.3 * np.sin(np.arange(SAMPLE_RATE) / 20)).astype(np.float32)
    contents = {}
    for kind in ("WAV", "FLAC", "OGG", "MP3"):
        content = io.BytesIO()
        soundfile.write(content, sound, SAMPLE_RATE, format=kind)
        contents[kind.lower()] = content.getvalue()
    content = io.BytesIO()
    with av.open(content, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
        frame.rate = SAMPLE_RATE
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return contents | {"m4a": content.getvalue()}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_read_whatever_it_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recordings: dict[str, bytes], name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for kind in {Path(name).suffix.strip(". ") or "wav", "m4a", "wav"}:
        (tmp_path / name).write_bytes(recordings.get(kind, recordings["wav"]))
        for given in (Path(name), tmp_path / name):
            assert load_utterance(given).duration == pytest.approx(1.0, abs=0.15), (kind, given)
    name_shown = load_utterance(Path(name)).name
    assert name_shown.isprintable()


@pytest.mark.parametrize("name", ["x" * 300, "x" * 5000 + "/a.wav", "a\0b.wav", "a\x1b[2J.wav", "", "concat:a|b", "."])
def test_a_name_without_a_file_is_one_harmless_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match="does not exist or is not a file") as error:
        load_utterance(Path(name))
    assert str(error.value).isprintable()


def test_what_is_no_file_or_may_not_be_read_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(AudioError, match="is not a file"):
        load_utterance(tmp_path / "pipe.wav")
    (tmp_path / "mine.wav").write_bytes(b"RIFF")

    def refuse(*given: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, who runs the tests in a container, may read everything
    with pytest.raises(AudioError, match=r"mine.wav cannot be read: Permission denied"):
        load_utterance(tmp_path / "mine.wav")
