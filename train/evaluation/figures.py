"""Figures from records: every one over the clips of one set, or of all sets of one kind of voice, with its interval.

Real and synthetic speech are never pooled, and neither are recording conditions.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from train.evaluation.records import Record
from train.evaluation.systems import UPPER_BOUND
from train.questions.bootstrap import interval, ratio_of_ratios
from train.questions.measures import combine

ALL = "all"
OF_UPPER_BOUND = "follows_of_upper_bound"


@dataclass(frozen=True)
class Figure:
    """A measure of one system with the ends of its 95 % interval; `set` or `task` may be `all`."""

    suite: str
    task: str
    set: str
    voice: str
    system: str
    measure: str
    clips: int
    value: float
    low: float
    high: float


def figures(records: Iterable[Record]) -> list[Figure]:
    """All figures that the records allow, in the order in which they first occur."""
    groups: dict[tuple[str, ...], list[list[float]]] = defaultdict(list)
    for record in records:
        bound = record["systems"].get(UPPER_BOUND, {}).get("scores", {}).get("follows")
        for system, entry in record["systems"].items():
            scores = dict(entry["scores"])
            if record["suite"] == "following" and bound and system != UPPER_BOUND:
                scores[OF_UPPER_BOUND] = [*scores["follows"], *bound]
            for measure, sums in scores.items():
                for key in _keys(record, measure):
                    groups[(record["suite"], *key, record["voice"], system, measure)].append(list(sums))
    found = []
    for (suite, task, clips, voice, system, measure), table in groups.items():
        value, low, high = interval(table, ratio_of_ratios if measure == OF_UPPER_BOUND else combine(measure))
        found.append(Figure(suite, task, clips, voice, system, measure, len(table), value, low, high))
    return found


def _keys(record: Record, measure: str) -> list[tuple[str, str]]:
    """The tasks and sets in whose figures a record counts."""
    suite, task = record["suite"], record["task"]
    if suite == "no speech":  # one question in turn from every task
        tasks = [ALL]
    else:
        tasks = [task, ALL] if suite == "following" and measure == "merely_transcribed" else [task]
    # A word error rate over languages and styles, or over conditions, would be that of the mixture.
    sets = [record["set"]] if suite in ("reading", "conditions") else [record["set"], ALL]
    return [(task, name) for task in tasks for name in sets]
