"""Whatever reaches the decoder or the live line: sound or one sentence, never a traceback, in little memory and time.

CI tries a few; by hand: `EARSHOT_EXAMPLES=5000 python -m pytest tests/sound/test_anything.py`.
"""

import os
import random
import time
import tracemalloc

import numpy as np
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from assistant.limits import MAX_DURATION, MIN_DURATION
from assistant.sound.audio import AudioError, LiveResampler, load_audio, prepare
from assistant.sound.endpointing import Endpointer
from tests.sound.test_decoding import KINDS, encoded

EXAMPLES = int(os.environ.get("EARSHOT_EXAMPLES", "150"))
CHECKS = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
MEMORY, SECONDS = 200 * 2**20, 10.0  # that one small file may take
RECORDINGS = {kind: encoded(kind) for kind in KINDS}
DETECTOR = Endpointer()


def harmed(data: bytes, how: list[tuple[str, int]]) -> bytes:
    """A recording after what disks, networks and other programs do to it."""
    content = bytearray(data)
    for harm, number in how:
        rng = random.Random(number)
        if not content:
            break
        place = rng.randrange(min(len(content), 200) if rng.random() < 0.5 else len(content))  # headers, mostly
        if harm == "flip":
            content[place] ^= 1 << rng.randrange(8)
        elif harm == "largest":
            content[place : place + 4] = b"\xff" * 4
        elif harm == "zeros":
            content[place : place + rng.randrange(64)] = bytes(rng.randrange(64))
        elif harm == "cut":
            del content[place:]
        elif harm == "lose":
            del content[place : place + rng.randrange(1000)]
        elif harm == "repeat":
            content[place:place] = content[place : place + rng.randrange(5000)]
        elif harm == "another":
            content += rng.choice(list(RECORDINGS.values()))
    return bytes(content)


HARM = st.tuples(
    st.sampled_from(["flip", "largest", "zeros", "cut", "lose", "repeat", "another"]), st.integers(0, 2**32)
)


@CHECKS
@given(kind=st.sampled_from(sorted(KINDS)), how=st.lists(HARM, max_size=6))
def test_a_mangled_file_is_sound_or_a_sentence(kind: str, how: list[tuple[str, int]]) -> None:
    data = harmed(RECORDINGS[kind], how)
    tracemalloc.start()
    began = time.monotonic()
    try:
        utterance = prepare(*load_audio(data))
        assert np.isfinite(utterance.samples).all() and np.abs(utterance.samples).max() <= 1
        assert MIN_DURATION <= utterance.duration <= MAX_DURATION
    except AudioError as error:
        assert str(error).endswith((".", "!"))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < MEMORY and time.monotonic() - began < SECONDS


@CHECKS
@given(data=st.binary(max_size=4000), beginning=st.sampled_from(sorted(KINDS)), length=st.integers(0, 64))
def test_bytes_that_begin_like_a_recording(data: bytes, beginning: str, length: int) -> None:
    try:
        load_audio(RECORDINGS[beginning][:length] + data)
    except AudioError as error:
        assert str(error).endswith(".")


KINDS_OF_SAMPLES = [np.uint8, np.int8, np.int16, np.int32, np.float16, np.float32, np.float64]


def samples(seed: int, length: int, channels: int, kind: int, wild: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dtype = KINDS_OF_SAMPLES[kind]
    shape = (length, channels) if channels else (length,)
    if np.issubdtype(dtype, np.integer):
        return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    values = rng.normal(0, 10.0 ** rng.integers(-6, 1), shape)
    if wild and values.size:
        for strange in (np.nan, np.inf, -np.inf, 1e30, 6e4, 0.0):
            values.flat[rng.integers(values.size)] = strange
    with np.errstate(over="ignore"):
        return values.astype(dtype)


BLOCK = {
    "seed": st.integers(0, 2**32),
    "channels": st.integers(0, 8),
    "kind": st.integers(0, len(KINDS_OF_SAMPLES) - 1),
    "wild": st.booleans(),
}


@CHECKS
@given(length=st.integers(0, 50_000), rate=st.integers(-1, 400_000), **BLOCK)
@example(length=16_000, rate=16_000, seed=0, channels=2, kind=5, wild=True)
def test_samples_of_any_kind(length: int, rate: int, seed: int, channels: int, kind: int, wild: bool) -> None:
    try:
        utterance = prepare(samples(seed, length, channels, kind, wild), rate)
        assert np.isfinite(utterance.samples).all() and np.abs(utterance.samples).max() <= 1.0001
    except AudioError as error:
        assert str(error).endswith(".")


@CHECKS
@given(lengths=st.lists(st.integers(0, 5_000), max_size=12), rate=st.integers(4_000, 384_000), **BLOCK)
def test_blocks_of_any_kind_on_the_live_line(
    lengths: list[int], rate: int, seed: int, channels: int, kind: int, wild: bool
) -> None:
    line = LiveResampler(rate)
    for number, length in enumerate(lengths):
        heard = line.feed(samples(seed + number, length, channels, kind, wild))
        assert heard.dtype == np.float32 and heard.ndim == 1 and np.isfinite(heard).all()
        DETECTOR.feed(heard[:4_000])
