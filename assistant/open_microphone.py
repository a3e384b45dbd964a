"""A recording answered as if it were spoken into an open microphone: heard early, and the reply spoken aloud."""

import time
from contextlib import closing

import numpy as np

from assistant.anticipation import Anticipation
from assistant.audio import SAMPLE_RATE, AudioError, Utterance
from assistant.dialogue import Turn
from assistant.endpointing import CHUNK, Closed, Endpointer, Paused, Resumed
from assistant.lanes import NOTHING_HEARD, Lane, Reply
from assistant.latency import Latency
from assistant.spoken_reply import speak
from assistant.tts import Voice

ROOM = 1e-4  # amplitude of a quiet room's noise: no microphone hears nothing at all
WAIT = 1.5  # seconds of it after the recording; twice what an endpointer waits for


def answer_spoken(lane: Lane, clip: Utterance, instruction: str | None, voice: Voice, early: bool) -> Latency:
    """The latency of a lane's spoken reply to the first utterance of a recording; zero is when that was closed.

    Parameters
    ----------
    early: let the lane begin while the closing silence is waited out, as the page and `talk` let the first lane.

    Raises
    ------
    AudioError
        Nobody speaks in the recording, or the lane hears no words.
    """
    turn, anticipation = _overhear(lane, clip, instruction or "", early)
    with closing(speak(lane.answer(turn, early=anticipation), voice)) as chunks:
        for chunk in chunks:
            if isinstance(chunk, Reply):
                return chunk.latency
    raise RuntimeError(f"The {lane.name} lane ended without a reply.")


def _overhear(lane: Lane, clip: Utterance, instruction: str, early: bool) -> tuple[Turn, Anticipation | None]:
    """Feed the endpointer until it closes an utterance. Speech is fed at once, for nothing waits for it; silence that
    may be the end takes as long as it lasts, for that is the time in which the lane works."""
    endpointer, anticipation = Endpointer(), None
    room = np.random.default_rng(0).normal(0, ROOM, round(WAIT * SAMPLE_RATE)).astype(np.float32)
    sound = np.concatenate([clip.resampled(), room])
    due = time.perf_counter()
    for start in range(0, len(sound), CHUNK):
        if anticipation is not None:
            due += CHUNK / SAMPLE_RATE
            time.sleep(max(0.0, due - time.perf_counter()))
        for event in endpointer.feed(sound[start : start + CHUNK]):
            if isinstance(event, Paused) and early:
                anticipation, due = lane.anticipate(Turn((event.utterance,), instruction)), time.perf_counter()
            elif isinstance(event, Resumed) and anticipation is not None:
                anticipation.drop()
                anticipation = None
            elif isinstance(event, Closed):
                return Turn((event.utterance,), instruction), anticipation
    raise AudioError(NOTHING_HEARD)
