"""The clock adds up, and the summaries are the textbook's."""

import time

import numpy as np
import pytest
import torch

from assistant.latency import STAGES, TERMS, Latency, StageClock, hardware, summarise


class Hands:
    """A clock that goes forward only when it is told to: a busy machine oversleeps, and sums are to be exact."""

    def __init__(self) -> None:
        self.now = 1000.0

    def perf_counter(self) -> float:
        """The time in seconds, in place of `time.perf_counter`."""
        return self.now


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    hands = Hands()
    monkeypatch.setattr("assistant.latency.time", hands)
    return hands


def test_stages_and_tokens_are_timed_from_zero(hands: Hands) -> None:
    clock = StageClock(torch.device("cpu"))
    for stage, seconds in (("features", 0.01), ("encode", 0.03), ("features", 0.01)):
        with clock.stage(stage):
            hands.now += seconds
        hands.now += 0.001  # between the stages: theirs is none of it, but it has passed
    clock.token(shown=False)
    hands.now += 0.02
    clock.token()
    hands.now += 0.02
    clock.token()
    latency = clock.finish(duration=2.0, endpoint=704.0)
    assert latency.features == pytest.approx(20)  # entered twice: it adds up
    assert latency.encode == pytest.approx(30)
    assert latency.first_token == pytest.approx(73)  # not the token that was half a character
    assert latency.total == pytest.approx(93)
    assert latency.reply_tokens == 3
    assert latency.rtf == pytest.approx(0.0465)
    assert latency.tokens_per_second == pytest.approx(2 / 0.02)
    assert latency.endpoint == 704.0  # as it was given: outside all other terms
    assert latency.connect is latency.transcribe is None


def test_zero_can_be_put_later_and_stages_keep_what_they_cost(hands: Hands) -> None:
    clock = StageClock(torch.device("cpu"))
    with clock.stage("encode"):
        hands.now += 0.5
    clock.restart(earlier=30.0)
    hands.now += 0.1
    clock.token()
    latency = clock.finish(duration=1.0)
    assert latency.encode == pytest.approx(500)
    assert latency.first_token == latency.total == pytest.approx(130)
    assert latency.endpoint is None


def test_the_clock_is_the_real_one() -> None:
    """A machine that others use too may oversleep: bounds are the sleep and what passes outside."""
    begun = time.perf_counter()
    clock = StageClock(torch.device("cpu"))
    with clock.stage("encode"):
        time.sleep(0.02)
    latency = clock.finish(duration=1.0)
    assert latency.encode is not None and latency.total is not None
    assert 19.9 <= latency.encode <= latency.total <= (time.perf_counter() - begun) * 1000


def test_a_reply_of_one_token_has_no_decoding_speed() -> None:
    clock = StageClock(torch.device("cpu"))
    clock.token()
    assert clock.finish(1.0).tokens_per_second is None


def test_every_term_is_defined() -> None:
    assert set(TERMS) == set(Latency().as_dict())
    assert set(STAGES) <= set(TERMS)


def test_summaries_agree_with_numpy() -> None:
    values = list(np.random.default_rng(0).gamma(2, 100, 37))
    assert summarise([*values, None]) == {
        "median": pytest.approx(np.median(values), abs=1e-3),
        "p95": pytest.approx(np.percentile(values, 95), abs=1e-3),
    }
    assert summarise([None]) is None
    assert summarise([5.0]) == {"median": 5.0, "p95": 5.0}


def test_the_hardware_is_named() -> None:
    assert ("cores" in hardware() and "GPU" in hardware()) or "cuda" in hardware().lower() or "NVIDIA" in hardware()
