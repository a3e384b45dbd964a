"""Audio in: decode, check, mix to mono, resample to 16 kHz, log-mel. Every stage downstream sees the same float32."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr
import torch

from assistant.files import exists, printable

SAMPLE_RATE = 16_000  # samples per second, what Whisper was trained on
MIN_DURATION = 0.3  # seconds; shorter than any word worth answering
MAX_DURATION = 120.0  # seconds; a longer monologue would not leave a laptop room for a prompt reply
SILENCE_PEAK = 1e-3  # full scale is 1.0; -60 dBFS is below the noise of any working microphone
MAX_FILE_SIZE = 200 * 1024 * 1024  # bytes; two minutes of 8-channel 96 kHz float fit


class AudioError(ValueError):
    """The recording cannot be answered; the message says why and what to do, in words for the person speaking."""


@dataclass(frozen=True)
class Utterance:
    """One checked recording: `samples` float32 [n] mono in -1..1, `rate` of them a second, as recorded.

    `endpoint` is how long after the end of speech it was closed, in milliseconds; None for a file.
    """

    samples: np.ndarray
    rate: int = SAMPLE_RATE
    name: str = "recording"
    endpoint: float | None = None

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.rate

    def resampled(self) -> np.ndarray:
        """Samples float32 [n] at 16 kHz. Not done on loading: it belongs to the latency of an answer."""
        if self.rate == SAMPLE_RATE:
            return self.samples
        return soxr.resample(self.samples, self.rate, SAMPLE_RATE).astype(np.float32)


def load_audio(source: str | Path | bytes) -> tuple[np.ndarray, int]:
    """Decode a file (or its bytes) to float32 samples [n] or [n, channels] and its sample rate in Hz.

    libsndfile reads WAV, FLAC, MP3 and Ogg; what it refuses (phone recordings in MP4 or WebM) goes to PyAV.

    Raises
    ------
    AudioError
        The file is missing, empty, too large, too long or not audio.
    """
    if not isinstance(source, bytes):
        path, name = Path(source), printable(Path(source).name)
        if not (exists(path) and path.is_file()):
            raise AudioError(f"{printable(source)} does not exist or is not a file. Check the path.")
        try:  # opened here: to decoders a name such as `-` or `concat:x` means something else than a file
            with path.open("rb") as file:
                return _decode(file, path.stat().st_size, name)
        except OSError as error:
            raise AudioError(f"{name} cannot be read: {error.strerror or error}. Check who may read it.") from error
    return _decode(io.BytesIO(source), len(source), "recording")


def _decode(content: BinaryIO, size: int, name: str) -> tuple[np.ndarray, int]:
    if size == 0:
        raise AudioError(f"{name} is empty (0 bytes). Record it again.")
    if size > MAX_FILE_SIZE:
        raise AudioError(f"{name} is {size / 2**20:.0f} MB; at most {MAX_FILE_SIZE / 2**20:.0f} MB can be read.")
    try:
        with soundfile.SoundFile(content) as file:
            _refuse_long(file.frames / file.samplerate, name)
            return file.read(dtype="float32"), file.samplerate
    except (soundfile.LibsndfileError, RuntimeError, TypeError):
        content.seek(0)
        return _load_with_av(content, name)


def _load_with_av(content: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    import av

    try:
        with av.open(content, mode="r") as container:
            stream = container.streams.audio[0]
            if not stream.rate:  # a name like .flac was enough to take a few bytes of text for sound
                raise ValueError("no sample rate")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=stream.rate)
            samples: list[np.ndarray] = []
            for frame in container.decode(stream):
                samples += [out.to_ndarray()[0] for out in resampler.resample(frame)]
                _refuse_long(frame.time or 0.0, name)
            samples += [out.to_ndarray()[0] for out in resampler.resample(None)]
            return np.concatenate(samples or [np.zeros(0, np.float32)]), stream.rate
    except AudioError:
        raise
    except (av.error.FFmpegError, IndexError, ValueError, OSError) as error:
        raise AudioError(
            f"{name} is not audio that can be read. Use WAV, FLAC, MP3, Ogg, M4A or WebM, or record it again."
        ) from error


def _refuse_long(duration: float, name: str) -> None:
    """Said before everything is decoded: hours of sound fit into a small file and not into memory."""
    if duration > MAX_DURATION:
        raise AudioError(f"{name} is too long: {duration:.0f} s. At most {MAX_DURATION:.0f} s; split it and try again.")


def prepare(samples: np.ndarray, rate: int, name: str = "recording") -> Utterance:
    """Mono float32 from any shape and integer width, checked.

    Parameters
    ----------
    samples: [n] or [n, channels]; integers are scaled by their width, floats are taken as -1..1 (and scaled down
        when they exceed it).
    rate: samples per second, positive.

    Raises
    ------
    AudioError
        Not finite, too short, too long, or silent.
    """
    samples = _mono(samples)
    if samples.ndim != 1 or rate <= 0:
        raise AudioError(f"{name} has no usable channels or sample rate. Record it again.")
    if not np.isfinite(samples).all():
        raise AudioError(f"{name} holds samples that are not numbers (NaN or infinity). Export it again.")
    duration = len(samples) / rate
    if duration < MIN_DURATION:
        raise AudioError(f"{name} is too short: {duration:.2f} s. Speak for at least {MIN_DURATION} s.")
    _refuse_long(duration, name)
    peak = float(np.abs(samples).max())
    if peak < SILENCE_PEAK:
        raise AudioError(f"Nothing was heard: {name} is silent. Check that the right microphone is on, and speak up.")
    if peak > 1:
        samples = samples / peak
    return Utterance(np.ascontiguousarray(samples), rate, name)


def _mono(samples: np.ndarray) -> np.ndarray:
    """Float32 [n] of samples [n] or [n, channels]; integers are scaled by their width."""
    samples = np.asarray(samples)
    if samples.dtype == np.uint8:
        samples = (samples.astype(np.float32) - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        samples = samples.astype(np.float32) / (np.iinfo(samples.dtype).max + 1)
    samples = samples.astype(np.float32, copy=False)
    return samples.mean(axis=1) if samples.ndim == 2 else samples


class LiveResampler:
    """Chunks of a live recording at any rate, mono or not -> chunks of float32 mono at 16 kHz, without seams."""

    def __init__(self, rate: int) -> None:
        self._stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Samples [n] or [n, channels], integers scaled by their width, -> float32 [m]; m varies, and may be 0.

        A device that hands over a number that is none is heard as silence there.
        """
        mono = np.nan_to_num(_mono(samples), posinf=0.0, neginf=0.0).clip(-1, 1)
        return mono if self._stream is None else self._stream.resample_chunk(mono)


def load_utterance(source: str | Path) -> Utterance:
    """Decode and check one file; see `load_audio` and `prepare` for what can go wrong."""
    samples, rate = load_audio(source)
    return prepare(samples, rate, printable(Path(source).name))


def log_mel(samples: np.ndarray | torch.Tensor, mels: int) -> torch.Tensor:
    """Whisper's log-mel spectrogram [mels, frames], 100 frames a second, of the samples as they are: no padding."""
    from whisper.audio import log_mel_spectrogram  # brings numba along: a second of import that text does not need

    return log_mel_spectrogram(torch.as_tensor(samples), mels)
