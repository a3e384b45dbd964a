"""A recording answered as if it were spoken into an open microphone: heard early, and the reply spoken aloud."""

import time
from contextlib import closing

import numpy as np

from assistant.lanes.anticipation import Anticipation
from assistant.lanes.dialogue import Turn
from assistant.lanes.lane import NOTHING_HEARD, Lane, Reply
from assistant.lanes.listening import Listener, Overheard
from assistant.latency import Latency
from assistant.sound.audio import SAMPLE_RATE, AudioError, Utterance
from assistant.sound.endpointing import CHUNK
from assistant.voice.spoken_reply import speak
from assistant.voice.tts import Voice

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
    overheard = _overhear(lane, clip, instruction, early)
    turn = Turn.spoken(overheard.utterance, instruction)
    with closing(speak(lane.answer(turn, early=overheard.early), voice)) as chunks:
        for chunk in chunks:
            if isinstance(chunk, Reply):
                return chunk.latency
    raise RuntimeError(f"The {lane.name} lane ended without a reply.")


def _overhear(lane: Lane, clip: Utterance, instruction: str | None, early: bool) -> Overheard:
    """Feed the endpointer until it closes an utterance. Speech is fed at once, for nothing waits for it; silence that
    may be the end takes as long as it lasts, for that is the time in which the lane works."""

    def anticipate(utterance: Utterance) -> Anticipation | None:
        return lane.anticipate(Turn.spoken(utterance, instruction)) if early else None

    listener = Listener(anticipate)
    room = np.random.default_rng(0).normal(0, ROOM, round(WAIT * SAMPLE_RATE)).astype(np.float32)
    sound = np.concatenate([clip.resampled(), room])
    due = 0.0
    for start in range(0, len(sound), CHUNK):
        due = due + CHUNK / SAMPLE_RATE if listener.betting else time.perf_counter()
        time.sleep(max(0.0, due - time.perf_counter()))
        for overheard in listener.feed(sound[start : start + CHUNK]):
            return overheard
    raise AudioError(NOTHING_HEARD)
