"""The bet on a pause, on real speech: made when somebody may be done, lost when they go on, won when they were."""

import numpy as np
import pytest

from assistant.files import SAMPLES
from assistant.lanes.listening import Listener
from assistant.sound.audio import SAMPLE_RATE, Utterance, load_utterance


class Bet:
    """Stands for an `Anticipation`: knows what was bet on, and whether it was dropped."""

    def __init__(self, utterance: Utterance) -> None:
        self.utterance, self.dropped = utterance, False

    def drop(self) -> None:
        self.dropped = True


@pytest.fixture
def speech() -> np.ndarray:
    """A question without the silence around it."""
    samples = load_utterance(SAMPLES / "capital.flac").resampled()
    loud = np.flatnonzero(np.abs(samples) > 0.02)
    return samples[loud[0] : loud[-1]]


def quiet(seconds: float) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 1e-4, int(seconds * SAMPLE_RATE)).astype(np.float32)


def test_who_goes_on_speaking_loses_the_bet_and_who_is_done_wins_it(speech: np.ndarray) -> None:
    bets: list[Bet] = []
    started: list[int] = []

    def anticipate(utterance: Utterance) -> Bet:
        bets.append(Bet(utterance))
        return bets[-1]

    listener = Listener(anticipate, lambda: started.append(len(bets)))  # type: ignore[arg-type]
    assert list(listener.feed(np.concatenate([quiet(0.5), speech, quiet(0.4)]))) == []
    assert listener.betting and len(bets) == 1 and not bets[0].dropped
    assert list(listener.feed(speech)) == []
    assert bets[0].dropped and not listener.betting
    (overheard,) = listener.feed(quiet(1.0))
    assert overheard.early is bets[-1] and not bets[-1].dropped and len(bets) == 2  # type: ignore[comparison-overlap]
    assert overheard.utterance.samples is bets[-1].utterance.samples  # the very array that the lane has heard
    assert overheard.utterance.duration > 2 * len(speech) / SAMPLE_RATE
    assert started == [0] and not listener.betting


def test_what_was_heard_early_is_dropped_when_the_microphone_closes(speech: np.ndarray) -> None:
    bets: list[Bet] = []
    listener = Listener(lambda utterance: bets.append(Bet(utterance)) or bets[-1])  # type: ignore[func-returns-value, arg-type, return-value]
    assert list(listener.feed(np.concatenate([quiet(0.5), speech, quiet(0.4)]))) == []
    listener.reset()
    assert bets[0].dropped and not listener.betting
    assert list(listener.feed(quiet(1.0))) == []


def test_nobody_has_to_bet(speech: np.ndarray) -> None:
    listener = Listener(lambda utterance: None)
    (overheard,) = listener.feed(np.concatenate([quiet(0.5), speech, quiet(1.0)]))
    assert overheard.early is None
