"""What each latency term means, the clock that measures it, and the summaries that are reported."""

import os
import platform
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

# Milliseconds on a monotonic clock; zero is the moment the whole utterance is in memory.
TERMS = {
    "features": "resample to 16 kHz and compute the log-mel spectrogram",
    "encode": "Whisper encoder",
    "connect": "Q-Former connector (end-to-end only)",
    "transcribe": "Whisper decoding to text (cascade only)",
    "prefill": "prompt into the LLM until its first logits",
    "first_token": "zero until the first text token can be shown",
    "first_audio": "zero until the first audible sample of the spoken reply, leading silence included",
    "total": "zero until the reply is complete",
    "reply_tokens": "tokens in the reply",
    "tokens_per_second": "decoding speed after the first token",
    "rtf": "total divided by the duration of the utterance; smaller is better",
    "endpoint": "end of speech until the utterance was closed; outside all other terms",
}
STAGES = ("features", "encode", "connect", "transcribe", "prefill")


@dataclass
class Latency:
    """The terms of one reply; None where a term does not apply or was not measured. Times in milliseconds."""

    features: float | None = None
    encode: float | None = None
    connect: float | None = None
    transcribe: float | None = None
    prefill: float | None = None
    first_token: float | None = None
    first_audio: float | None = None
    total: float | None = None
    reply_tokens: int = 0
    tokens_per_second: float | None = None
    rtf: float | None = None
    endpoint: float | None = None

    @property
    def first_audio_gap(self) -> float | None:
        """From the first token to the first audible sample."""
        if self.first_audio is None or self.first_token is None:
            return None
        return self.first_audio - self.first_token

    def as_dict(self) -> dict[str, float | int | None]:
        """All terms, rounded to what a clock can tell."""
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in asdict(self).items()}


class StageClock:
    """Times the stages of one reply; the device is synchronised around each, so that no stage pays for another.

    >>> clock = StageClock(torch.device("cpu"))
    >>> with clock.stage("encode"):
    ...     pass
    >>> clock.token()
    >>> clock.finish(duration=1.0).reply_tokens
    1
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._latency = Latency()
        self._tokens = 0
        self._synchronise()
        self._zero = time.perf_counter()

    def _synchronise(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()

    def elapsed(self) -> float:
        """Milliseconds since zero."""
        self._synchronise()
        return (time.perf_counter() - self._zero) * 1000

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one of `STAGES`; a stage entered twice adds up."""
        start = self.elapsed()
        yield
        setattr(self._latency, name, (getattr(self._latency, name) or 0.0) + self.elapsed() - start)

    def restart(self, earlier: float = 0.0) -> None:
        """Put zero to `earlier` milliseconds ago. Stages timed before keep what they cost: heard early is not free."""
        self._synchronise()
        self._zero = time.perf_counter() - earlier / 1000

    def token(self, shown: bool = True) -> None:
        """Count one reply token, at the moment its text is handed over; `shown` is false for half a character."""
        self._tokens += 1
        if shown and self._latency.first_token is None:
            self._latency.first_token = self.elapsed()

    def finish(self, duration: float, endpoint: float | None = None) -> Latency:
        """The record of a reply to `duration` seconds of speech, closed `endpoint` milliseconds after they ended."""
        latency = self._latency
        latency.endpoint = endpoint
        latency.total = self.elapsed()
        latency.reply_tokens = self._tokens
        if latency.first_token is not None and self._tokens > 1:
            latency.tokens_per_second = (self._tokens - 1) / max(latency.total - latency.first_token, 1e-3) * 1000
        if duration > 0:
            latency.rtf = latency.total / 1000 / duration
        return latency


def in_words(latency: Latency) -> str:
    """Where a reply's time went, in one line."""
    stages = " + ".join(f"{stage} {getattr(latency, stage):.0f}" for stage in STAGES if getattr(latency, stage))
    first = "no text" if latency.first_token is None else f"first token {latency.first_token:.0f} ms"
    audio = f", first audio {latency.first_audio:.0f} ms" if latency.first_audio else ""
    speed = f", {latency.tokens_per_second:.1f} tokens/s" if latency.tokens_per_second else ""
    closed = f"; closed {latency.endpoint:.0f} ms after the last word" if latency.endpoint else ""
    total = f"total {latency.total or 0:.0f} ms, {latency.reply_tokens} tokens"
    return f"{first} ({stages or 'nothing to hear'}){audio}, {total}{speed}{closed}"


def summarise(values: Iterable[float | None]) -> dict[str, float] | None:
    """Median and 95th percentile (linear interpolation) of the values that are there; None when there are none."""
    known = sorted(value for value in values if value is not None)
    if not known:
        return None
    position = 0.95 * (len(known) - 1)
    low = int(position)
    high = min(low + 1, len(known) - 1)
    p95 = known[low] + (position - low) * (known[high] - known[low])
    return {"median": round(statistics.median(known), 3), "p95": round(p95, 3)}


@cache
def hardware() -> str:
    """This machine in words: processor, cores, memory, accelerator, operating system."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line for line in information.read_text("utf-8").splitlines() if line.startswith("model name")]
        processor = names[0].split(":", 1)[1].strip() if names else processor
    parts = [processor, f"{os.cpu_count()} cores"]
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        parts.append(f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB")
    parts.append(torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")
    return ", ".join([*parts, platform.system()])
