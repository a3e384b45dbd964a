"""Recordings answered as if they were spoken: on a scripted lane, and `bench --hands-free` on the real ones."""

import json
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import launch
from assistant.commands.open_microphone import answer_spoken
from assistant.files import SAMPLES
from assistant.lanes import loading as lanes_module
from assistant.lanes.anticipation import Anticipation, Ready
from assistant.lanes.dialogue import Dialogue, Turn
from assistant.lanes.lane import Chunks, Lane, Reply, TextDelta
from assistant.latency import Latency, StageClock
from assistant.sound.audio import SAMPLE_RATE, AudioError, Utterance, load_utterance
from assistant.voice.tts import Voice

QUESTION = load_utterance(SAMPLES / "capital.flac")


class Listener(Lane):
    """Says a word, and remembers what it was asked and whether it had heard that early."""

    name = "end_to_end"

    def __init__(self) -> None:
        self.turns: list[Turn] = []
        self.early: list[bool] = []
        self.bets = 0

    def anticipate(self, turn: Turn, dialogue: Dialogue | None = None) -> Anticipation:
        self.bets += 1
        return Anticipation(turn, threading.Lock(), lambda _: Ready([], None, StageClock(torch.device("cpu"))))

    def answer(
        self,
        turn: Turn,
        dialogue: Dialogue | None = None,
        early: Anticipation | None = None,
        stop: threading.Event | None = None,
    ) -> Chunks:
        self.turns.append(turn)
        self.early.append(early is not None and early.take(turn) is not None)
        yield TextDelta("Well.")
        yield Reply("Well.", None, Latency(first_token=5.0, total=6.0, endpoint=turn.endpoint))


def test_a_clip_is_heard_early_and_answered_aloud() -> None:
    lane = Listener()
    latency = answer_spoken(lane, QUESTION, "Repeat", Voice(), early=True)
    assert lane.early == [True] and lane.bets >= 1
    assert lane.turns[0].text == "Repeat"
    assert abs(lane.turns[0].duration - QUESTION.duration) < 1
    assert latency.endpoint is not None and 600 < latency.endpoint < 800
    assert latency.first_audio_gap is not None and latency.first_audio_gap > 0


def test_a_lane_that_hears_the_end_first_is_not_asked_to_bet() -> None:
    lane = Listener()
    answer_spoken(lane, QUESTION, None, Voice(), early=False)
    assert lane.early == [False] and lane.bets == 0


def test_a_recording_without_speech_is_refused() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, 2 * SAMPLE_RATE).astype(np.float32)
    with pytest.raises(AudioError, match="No words"):
        answer_spoken(Listener(), Utterance(noise), None, Voice(), early=True)


def test_bench_hands_free_on_the_real_lanes(
    tmp_path: Path, lanes: dict[str, Lane], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "capital.flac").write_bytes((SAMPLES / "capital.flac").read_bytes())
    monkeypatch.setattr(lanes_module, "load_lanes", lambda options: lanes)
    assert launch.main(["bench", str(tmp_path), "--hands-free"]) == 0
    shown = capsys.readouterr().out
    result = json.loads(shown.splitlines()[-1])
    speech, cascade = result["lanes"]["end_to_end"], result["lanes"]["cascade"]
    assert result["hands_free"] is True and "first_audio_gap" in shown
    assert speech["first_token"]["median"] < cascade["first_token"]["median"]
    assert (
        speech["first_token"]["median"] < speech["encode"]["median"] + speech["prefill"]["median"]
    )  # heard before zero
    assert speech["endpoint"]["median"] == cascade["endpoint"]["median"] > 600
    assert speech["first_audio_gap"]["median"] > 0
