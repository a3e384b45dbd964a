"""Audio in: decode, check, mix to mono, resample to 16 kHz, log-mel. Every stage downstream sees the same float32."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soxr
import torch

from assistant.files import exists, printable
from assistant.limits import MAX_DURATION, MAX_FILE_SIZE, MIN_DURATION, SILENCE_PEAK
from assistant.sound.channels import Mixer
from assistant.sound.decoding import NotAudio, TooLong, decode, floats

SAMPLE_RATE = 16_000  # samples per second, what Whisper was trained on


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
    """Decode a file (or its bytes) to float32 samples [n] of one channel and its sample rate in Hz.

    Raises
    ------
    AudioError
        The file is missing, empty, too large, too long or not audio.
    """
    if isinstance(source, bytes):
        name, data = "recording", source
    else:
        path, name = Path(source), printable(Path(source).name)
        if not (exists(path) and path.is_file()):
            raise AudioError(f"{printable(source)} does not exist or is not a file. Check the path.")
        try:  # read here: to decoders a name such as `-` or `concat:x` means something else than a file
            _refuse_large(path.stat().st_size, name)
            with path.open("rb") as file:
                data = file.read()
        except OSError as error:
            raise AudioError(f"{name} cannot be read: {error.strerror or error}. Check who may read it.") from error
    _refuse_large(len(data), name)
    if not data:
        raise AudioError(f"{name} is empty (0 bytes). Record it again.")
    try:
        return decode(data, MAX_DURATION)
    except TooLong:
        raise AudioError(
            f"{name} is too long: more than {MAX_DURATION:.0f} s. At most {MAX_DURATION:.0f} s; split it and try again."
        ) from None
    except NotAudio as error:
        raise AudioError(
            f"{name} is not audio that can be read. Use WAV, FLAC, MP3, Ogg, M4A or WebM, or record it again."
        ) from error


def _refuse_large(size: int, name: str) -> None:
    if size > MAX_FILE_SIZE:
        raise AudioError(f"{name} is {size / 2**20:.0f} MB; at most {MAX_FILE_SIZE / 2**20:.0f} MB can be read.")


def prepare(samples: np.ndarray, rate: int, name: str = "recording") -> Utterance:
    """Mono float32 from any shape and integer width, checked.

    A few samples that are no numbers, or that are beyond all measure, are mended: a loose cable must not silence what
    was said before and after it.

    Parameters
    ----------
    samples: [n] or [n, channels]; integers are scaled by their width, floats are taken as -1..1 (and scaled down
        when they exceed it).
    rate: samples per second, positive.

    Raises
    ------
    AudioError
        Mostly not finite, too short, too long, or silent.
    """
    samples = floats(np.asarray(samples))
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not samples.shape[1]) or rate <= 0:
        raise AudioError(f"{name} has no usable channels or sample rate. Record it again.")
    duration = len(samples) / rate
    if duration < MIN_DURATION:
        raise AudioError(f"{name} is too short: {duration:.2f} s. Speak for at least {MIN_DURATION} s.")
    if duration > MAX_DURATION:
        raise AudioError(f"{name} is too long: {duration:.0f} s. At most {MAX_DURATION:.0f} s; split it and try again.")
    if samples.ndim == 2:
        mixer, step = Mixer(rate), max(1, rate // 10)
        samples = np.concatenate([mixer.feed(samples[start : start + step]) for start in range(0, len(samples), step)])
    broken = _broken(samples, rate)
    if broken.sum() > len(samples) / 2:
        raise AudioError(f"{name} holds samples that are not numbers (NaN or infinity). Export it again.")
    if broken.any():
        places = np.arange(len(samples))
        samples = np.where(broken, np.interp(places, places[~broken], samples[~broken]), samples).astype(np.float32)
    peak = float(np.abs(samples).max())
    if peak < SILENCE_PEAK:
        raise AudioError(f"Nothing was heard: {name} is silent. Check that the right microphone is on, and speak up.")
    if peak > 1:
        samples = samples / peak
    return Utterance(np.ascontiguousarray(samples), rate, name)


def _broken(samples: np.ndarray, rate: int) -> np.ndarray:
    """Which samples [n] no microphone has given: not finite, or few and far above full scale and all the others.

    Sound gets louder by degrees: between the loudest hundredths of a second and the next there is no gap of 20 dB.
    """
    broken = ~np.isfinite(samples)
    loudness = np.where(broken, 0, np.abs(samples))
    step = max(1, rate // 100)
    peaks = np.sort([part.max() for part in np.split(loudness, range(step, len(loudness), step))])[::-1]
    above, below = peaks[:-1], peaks[1:]
    gaps = np.flatnonzero((above > 1) & (above / 10 > below) & (below >= SILENCE_PEAK) & (below <= 1))
    if len(gaps):
        beyond = loudness > below[gaps[-1]]
        if beyond.sum() < len(samples) / 100:
            broken |= beyond
    return broken


class LiveResampler:
    """Chunks of a live recording at any rate, mono or not -> chunks of float32 mono at 16 kHz, without seams."""

    def __init__(self, rate: int) -> None:
        self._mixer = Mixer(rate)
        self._stream = None if rate == SAMPLE_RATE else soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")

    def feed(self, samples: np.ndarray) -> np.ndarray:
        """Samples [n] or [n, channels], integers scaled by their width, -> float32 [m]; m varies, and may be 0.

        A device that hands over a number that is none is heard as silence there.
        """
        values = floats(samples)
        mono = self._mixer.feed(values) if values.ndim == 2 else values
        mono = np.nan_to_num(mono, posinf=0.0, neginf=0.0).clip(-1, 1)
        return mono if self._stream is None else self._stream.resample_chunk(mono)


def load_utterance(source: str | Path) -> Utterance:
    """Decode and check one file; see `load_audio` and `prepare` for what can go wrong."""
    samples, rate = load_audio(source)
    return prepare(samples, rate, printable(Path(source).name))


def log_mel(samples: np.ndarray | torch.Tensor, mels: int) -> torch.Tensor:
    """Whisper's log-mel spectrogram [mels, frames], 100 frames a second, of the samples as they are: no padding."""
    from whisper.audio import log_mel_spectrogram  # brings numba along: a second of import that text does not need

    return log_mel_spectrogram(torch.as_tensor(samples), mels)
