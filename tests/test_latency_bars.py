"""The stacked bars: what is drawn, on which axis, and that numbers and words are right."""

import re

import pytest

from assistant.latency import TERMS, Latency
from ui.latency_bars import axis, latency_bars, segments

LATENCY = Latency(features=10, encode=200, connect=40, prefill=100, first_token=360, total=1250, reply_tokens=20)


def test_segments_add_up_to_the_total() -> None:
    parts = segments(LATENCY)
    assert [name for name, _ in parts] == ["features", "encode", "connect", "prefill", "decode"]
    assert sum(value for _, value in parts) == pytest.approx(1250)


def test_segments_of_a_reply_without_a_total() -> None:
    assert segments(Latency(encode=5.0)) == [("encode", 5.0)]
    assert segments(Latency()) == []


@pytest.mark.parametrize(
    ("longest", "end"),
    [(0, 1000), (float("nan"), 1000), (0.7, 0.8), (9, 10), (1250, 1250), (2810, 3000), (61_000, 80_000)],
)
def test_the_axis_holds_the_longest_and_has_round_ticks(longest: float, end: float) -> None:
    last, ticks = axis(longest)
    assert last == pytest.approx(end)
    assert ticks[0] == 0 and ticks[-1] == pytest.approx(last) and len(ticks) <= 6


def test_both_bars_share_one_axis() -> None:
    html = latency_bars({"end_to_end": LATENCY, "cascade": Latency(transcribe=2000, total=2500)})
    widths = dict(re.findall(r'class="segment (\w+)" style="left:[\d.]+%;width:([\d.]+)%', html))
    assert float(widths["encode"]) == pytest.approx(8)
    assert float(widths["transcribe"]) == pytest.approx(80)


def test_markers_stand_only_for_what_was_measured() -> None:
    assert 'class="marker first_audio"' not in latency_bars({"cascade": LATENCY})
    html = latency_bars({"cascade": Latency(total=100, first_token=50, first_audio=200)})
    assert re.search(r'class="marker first_audio" style="left:100\.000%', html)


def test_every_term_is_defined_and_words_are_escaped() -> None:
    html = latency_bars({"end_to_end": LATENCY, "cascade": None}, "<4 cores>")
    assert "&lt;4 cores&gt;" in html and "<4" not in html
    for meaning in TERMS.values():
        assert meaning in html
    assert "not timed yet" in html
