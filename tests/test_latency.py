"""The clock adds up, and the summaries are the textbook's."""

import time

import numpy as np
import pytest
import torch

from assistant.latency import STAGES, TERMS, Latency, StageClock, hardware, summarise


def test_stages_and_tokens_are_timed_from_zero() -> None:
    clock = StageClock(torch.device("cpu"))
    for stage, seconds in (("features", 0.01), ("encode", 0.03), ("features", 0.01)):
        with clock.stage(stage):
            time.sleep(seconds)
    clock.token(shown=False)
    time.sleep(0.02)
    clock.token()
    time.sleep(0.02)
    clock.token()
    latency = clock.finish(duration=2.0)
    assert latency.features == pytest.approx(20, abs=8)  # entered twice: it adds up
    assert latency.encode == pytest.approx(30, abs=8)
    assert latency.first_token == pytest.approx(70, abs=15)  # not the token that was half a character
    assert latency.total == pytest.approx(90, abs=20)
    assert latency.reply_tokens == 3
    assert latency.rtf == pytest.approx(latency.total / 2000)
    assert latency.tokens_per_second == pytest.approx(2 / 0.02, rel=0.6)
    assert latency.connect is latency.transcribe is latency.endpoint is None


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
