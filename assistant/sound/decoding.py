"""Recordings as people have them -> samples: what counts is what can be decoded, never what a header says."""

import io
import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import soxr

from assistant.limits import MAX_RATE, MIN_RATE
from assistant.sound.channels import Mixer

# Containers that hold their sound themselves. Playlists and lists of files are none: they would open what they name.
CONTAINERS = (
    "wav,w64,aiff,au,caf,flac,mp3,aac,ogg,mov,mp4,m4a,3gp,matroska,webm,amr,asf,avi,mpeg,mpegts,wv,ac3,ape,tta,voc"
)
GIVE_UP = 1_000  # broken packets one after another: no recording, whatever it began like
# How a recording begins. One that begins in the middle of another was put behind it by `cat`.
BEGINNING = re.compile(
    rb"RIFF....WAVE|RF64....WAVE|FORM....AIF[FC]|fLaC[\x00\x80]\x00\x00\x22|OggS\x00[\x02\x06]|\x00\x00\x00.ftyp"
    rb"|riff\x2e\x91\xcf\x11|\x1aE\xdf\xa3(?:\x01.{7}|[\x80-\xff])\x42[\x82\x86\xf2\xf3\xf7]|caff\x00\x01\x00\x00|\.snd\x00\x00\x00.",
    re.DOTALL,
)
CHUNK_NAME = re.compile(rb"[A-Za-z0-9 _]{4}|id3 |ID3.")


class NotAudio(ValueError):
    """Nothing in these bytes can be decoded as sound."""


class TooLong(ValueError):
    """They hold more sound than was asked for."""


def decode(data: bytes, longest: float) -> tuple[np.ndarray, int]:
    """One recording, or several that were joined -> float32 samples [n] of one channel, and their rate in Hz.

    All streams of sound that follow each other are heard, whatever their rates and channels; the rate is that of the
    first. What is broken is left out. Memory stays below a small multiple of the bytes and of `longest` seconds.

    Raises
    ------
    NotAudio
        Nothing can be decoded.
    TooLong
        More than `longest` seconds can.
    """
    recordings = joined(data)
    try:
        return _decode(recordings, longest)
    except NotAudio:
        if len(recordings) == 1:
            raise
        return _decode([data], longest)  # what looked like a beginning was none


def joined(data: bytes) -> list[bytes]:
    """The recordings that stand one after another in `data`: mostly one."""
    beginnings = [0]
    for match in BEGINNING.finditer(data, 1):
        inside = match[0].startswith(b"fLaC") and data.startswith((b"OggS", b"\x1aE\xdf\xa3"), beginnings[-1])
        if not inside and match.start() != _tag_end(data):
            beginnings.append(match.start())
    cuts = [place for before, place in pairwise(beginnings) if _page_end(data, before) != place]
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def _tag_end(data: bytes) -> int:
    """Where an ID3 tag ends that stands before the first recording."""
    if not data.startswith(b"ID3") or len(data) < 10:
        return -1
    return 10 + sum(byte << 7 * place for place, byte in enumerate(reversed(data[6:10])))


def _page_end(data: bytes, start: int) -> int:
    """Where the Ogg page at `start` ends: streams that run side by side begin on pages right after each other."""
    if not data.startswith(b"OggS", start):
        return -1
    table = data[start + 27 : start + 27 + data[start + 26]] if len(data) > start + 26 else b""
    return start + 27 + len(table) + sum(table)


def _decode(recordings: list[bytes], longest: float) -> tuple[np.ndarray, int]:
    runs: list[tuple[int, list[np.ndarray]]] = []  # rate and samples, as long as rate and channels stay
    format_now, heard = None, 0.0
    for number, recording in enumerate(recordings):
        for samples, rate in _frames(recording):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise NotAudio(f"{rate} samples a second")
            if format_now != (number, rate, samples.shape[1]):
                format_now, mixer = (number, rate, samples.shape[1]), Mixer(rate)
                runs.append((rate, []))
            heard += len(samples) / rate
            if heard > longest:
                raise TooLong
            runs[-1][1].append(mixer.feed(samples))
        if format_now is None or format_now[0] != number:
            raise NotAudio("no sound")
    rate = runs[0][0]
    whole = [(each, np.concatenate(pieces)) for each, pieces in runs]
    return np.concatenate([one if each == rate else soxr.resample(one, each, rate) for each, one in whole]), rate


def _frames(data: bytes) -> Iterator[tuple[np.ndarray, int]]:
    """Float32 samples [n, channels] and their rate, piece by piece."""
    import av

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    try:
        with av.open(io.BytesIO(_sized(data)), options=options, mode="r", metadata_errors="replace") as container:
            stream = container.streams.best("audio")
            if stream is None:
                return
            broken, kind, resampler = 0, None, av.AudioResampler(format="flt")
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.error.FFmpegError:
                    broken += 1
                    if broken > GIVE_UP:
                        return
                    continue
                for frame in frames:
                    assert isinstance(frame, av.AudioFrame)
                    broken = 0
                    if kind != (kind := (frame.format.name, frame.layout.name, frame.sample_rate)):
                        resampler = av.AudioResampler(format="flt")
                    # All channels in one plane: PyAV counts planes wrongly from eight channels on, and crashes.
                    for packed in resampler.resample(frame):
                        yield packed.to_ndarray().reshape(-1, packed.layout.nb_channels), packed.sample_rate
    except (av.error.FFmpegError, OSError, ValueError, IndexError, UnicodeError):
        return  # what was decoded so far has been heard


def floats(samples: np.ndarray) -> np.ndarray:
    """Float32 of any kind of samples; integers are scaled by their width to -1..1."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if np.issubdtype(samples.dtype, np.integer):
        return (samples / (float(np.iinfo(samples.dtype).max) + 1)).astype(np.float32)
    with np.errstate(over="ignore"):
        return samples.astype(np.float32, copy=False)


def _sized(data: bytes) -> bytes:
    """A WAV whose recorder was killed before it wrote the size of its sound, with the size that it has."""
    place = 12
    while data.startswith(b"RIFF") and place + 8 <= len(data):
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + size + size % 2
        if data[place : place + 4] == b"data":
            if end + 8 <= len(data) and not CHUNK_NAME.match(data, end):
                return data[: place + 4] + b"\xff\xff\xff\xff" + data[place + 8 :]
            return data
        place = end
    return data
