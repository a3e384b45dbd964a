"""Lanes compared by what was measured: medians and 95th percentiles by clip length, and the ratio of the two lanes."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from assistant.lanes.names import CASCADE, END_TO_END, LANES
from assistant.latency import Latency, summarise

BUCKETS = (("<3 s", 0.0, 3.0), ("3-8 s", 3.0, 8.0), ("8-15 s", 8.0, 15.0), (">15 s", 15.0, float("inf")))  # seconds
RATIO_TERMS = ("first_token", "total")
GAP = "first_audio_gap"  # from the first token to the first audible sample


@dataclass(frozen=True)
class Measurement:
    """One answer of one lane to one clip; `clip` is its number in the set."""

    clip: int
    duration: float  # seconds
    lane: str
    latency: Latency


def summary(measurements: Sequence[Measurement]) -> dict[str, Any]:
    """`clips`, `lanes`, `ratio` and `by_duration` of the measurements, as `launch.py bench` prints them."""
    buckets = []
    for label, low, high in BUCKETS:
        inside = [one for one in measurements if low <= one.duration < high]
        if inside:
            buckets.append({"duration": label, **_summary(inside)})
    return {**_summary(measurements), "by_duration": buckets}


def _summary(measurements: Sequence[Measurement]) -> dict[str, Any]:
    lanes: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(one.lane for one in measurements):
        own = [one.latency for one in measurements if one.lane == name]
        values = {field.name: summarise(getattr(latency, field.name) for latency in own) for field in fields(Latency)}
        values[GAP] = summarise(one.first_audio_gap for one in own)
        lanes[name] = {term: value for term, value in values.items() if value is not None}
    return {
        "clips": len({one.clip for one in measurements}),
        "lanes": dict(sorted(lanes.items(), reverse=True)),  # the end-to-end lane first, whichever began
        "ratio": {term: ratio for term in RATIO_TERMS if (ratio := _ratio(measurements, term)) is not None},
    }


def _ratio(measurements: Sequence[Measurement], term: str) -> float | None:
    """End-to-end over cascade: the median over clips of each clip's own ratio (of its medians, when repeated)."""
    values: dict[int, dict[str, list[float]]] = {}
    for one in measurements:
        if (value := getattr(one.latency, term)) is not None:
            values.setdefault(one.clip, {}).setdefault(one.lane, []).append(value)
    ratios = [
        statistics.median(lanes[END_TO_END]) / statistics.median(lanes[CASCADE])
        for lanes in values.values()
        if lanes.keys() >= set(LANES) and statistics.median(lanes[CASCADE]) > 0
    ]
    return round(statistics.median(ratios), 3) if ratios else None
