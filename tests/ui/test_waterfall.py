"""The waterfall: what is drawn, on which axis, and that numbers and words are right."""

import re

import pytest

from assistant.latency import TERMS, Latency
from ui.texts import CHINESE, ENGLISH, Texts
from ui.waterfall import axis, figures, segments, waterfall

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


def test_both_lanes_share_one_axis_and_stages_follow_each_other() -> None:
    html = waterfall({"end_to_end": LATENCY, "cascade": Latency(transcribe=2000, total=2500)}, ENGLISH)
    bars = {
        name: (float(left), float(width))
        for name, left, width in re.findall(r'class="segment (\w+)" style="left:([\d.]+)%;width:([\d.]+)%', html)
        if name in ("encode", "connect", "transcribe")
    }
    assert bars == {"encode": (0.4, 8.0), "connect": (8.4, 1.6), "transcribe": (0.0, 80.0)}


def test_as_many_rows_before_the_first_answer_as_after_it() -> None:
    before = waterfall({"end_to_end": None, "cascade": None}, ENGLISH)
    after = waterfall({"end_to_end": LATENCY, "cascade": Latency(transcribe=2000, total=2500)}, ENGLISH)
    assert before.count('class="stage"') == after.count('class="stage"') == 10


def test_markers_stand_only_for_what_was_measured() -> None:
    assert 'class="marker first_audio"' not in waterfall({"cascade": LATENCY}, ENGLISH)
    html = waterfall({"cascade": Latency(total=100, first_token=50, first_audio=200)}, ENGLISH)
    assert re.search(r'class="marker first_audio" style="left:100\.000%', html)


def test_a_screen_reader_hears_every_stage() -> None:
    html = waterfall({"end_to_end": LATENCY, "cascade": None}, ENGLISH)
    spoken = re.findall(r'aria-label="([^"]*)"', html)
    assert "encode 200 ms" in spoken[0] and "first token 360 ms" in spoken[0]
    assert spoken[1] == "Cascade: not timed yet"


@pytest.mark.parametrize("texts", [ENGLISH, CHINESE])
def test_every_term_is_defined(texts: Texts) -> None:
    html = figures({"end_to_end": LATENCY, "cascade": None}, texts)
    for term in TERMS:
        assert texts.terms[term] in html and texts.term_names[term] in html
