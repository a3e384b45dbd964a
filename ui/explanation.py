"""What the difference between the lanes is made of, in one or two sentences computed from their measured stages."""

import statistics
from collections.abc import Mapping, Sequence

from assistant.lanes.names import LANES
from assistant.latency import STAGES, Latency
from ui.texts import Texts

REST = "rest"  # of the time to the first token, outside all stages
WORTH_SAYING = 0.03  # share of the longer time to the first token that a stage must differ by
LEVEL = 0.02  # share of it below which the lanes are said to be level


def explain(pairs: Sequence[Mapping[str, Latency]], texts: Texts) -> str:
    """Whose first token came later on average over turns (lane -> latency), and in which stages the time went.

    Means, not medians: only those of the stages add up to that of the whole.
    """
    parts = {lane: _parts([pair[lane] for pair in pairs]) for lane in LANES}
    fast, slow = sorted(parts, key=lambda lane: sum(parts[lane].values()))
    longest = sum(parts[slow].values())
    difference = longest - sum(parts[fast].values())
    if difference < LEVEL * longest:
        sentences = [texts.level]
    else:
        sentences = [texts.later.format(slow=texts.subjects[slow], difference=f"{difference:,.0f}")]
    for lane, other in ((slow, fast), (fast, slow)):
        more = {stage: parts[lane][stage] - parts[other][stage] for stage in parts[lane]}
        told = sorted(
            (stage for stage in more if more[stage] >= WORTH_SAYING * longest), key=lambda stage: -more[stage]
        )
        if told:
            said = [texts.part[stage].format(value=f"{more[stage]:,.0f}") for stage in told]
            sentences.append(texts.spent.format(lane=texts.subjects[lane], parts=_join(said, texts.joined)))
    return (" " if texts.code == "en" else "").join(sentences)


def _parts(latencies: Sequence[Latency]) -> dict[str, float]:
    """The mean milliseconds of each stage, and of the rest, up to the first token."""
    means = {stage: statistics.fmean(getattr(one, stage) or 0.0 for one in latencies) for stage in STAGES}
    rest = statistics.fmean(one.first_token or 0.0 for one in latencies) - sum(means.values())
    return means | {REST: max(rest, 0.0)}


def _join(parts: Sequence[str], joined: tuple[str, str]) -> str:
    between, last = joined
    return between.join(parts[:-1]) + last + parts[-1] if len(parts) > 1 else parts[0]
