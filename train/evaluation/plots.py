"""Plots of the report: one picture for each question that a table answers slowly."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from assistant.files import whole
from train.evaluation.figures import ALL, Figure

# Okabe and Ito, colour-blind safe; black is the intervals'.
COLOURS = ["#0072b2", "#e69f00", "#666666", "#cc79a7", "#009e73", "#56b4e9", "#d55e00", "#f0e442"]
matplotlib.rcParams["svg.hashsalt"] = "earshot"  # the same figures give the same file


def draw_plots(folder: Path, found: Sequence[Figure]) -> list[tuple[str, str]]:
    """Write what can be drawn as SVG; file names and titles."""
    wanted = [
        ("following", "Does what the instruction asks, real speech", "task", "following", "follows", "real"),
        ("bias", "Merely transcribes, real speech", "task", "following", "merely_transcribed", "real"),
        ("reading", "Word error rate, real speech", "set", "reading", "wer", "real"),
        ("conditions", "Word error rate under noise and reverberation", "set", "conditions", "wer", "real"),
    ]
    drawn = []
    for name, title, across, suite, measure, voice in wanted:
        chosen = [
            figure
            for figure in found
            if (figure.suite, figure.measure, figure.voice) == (suite, measure, voice)
            and (figure.set == ALL) == (across == "task")
            and (across == "task" or figure.task == "reading")
        ]
        if chosen:
            _bars(folder / f"{name}.svg", title, across, chosen)
            drawn.append((f"{name}.svg", title))
    return drawn


def _bars(path: Path, title: str, across: str, chosen: Sequence[Figure]) -> None:
    """Groups of bars with their intervals, a colour for each system."""
    groups = sorted(dict.fromkeys(getattr(figure, across) for figure in chosen), key=lambda group: bool(group == ALL))
    systems = list(dict.fromkeys(figure.system for figure in chosen))
    inches = max(6, 1.4 * len(groups))
    canvas = Canvas(figsize=(inches, 4), layout="constrained", facecolor="white")
    axes: Axes = canvas.subplots()
    width = 0.8 / len(systems)
    for index, system in enumerate(systems):
        mine = {getattr(figure, across): figure for figure in chosen if figure.system == system}
        there = [(position, mine[group]) for position, group in enumerate(groups) if group in mine]
        values = np.array([figure.value for _, figure in there])
        ends = np.array([[figure.low, figure.high] for _, figure in there]).T
        places = np.array([position for position, _ in there]) + (index - (len(systems) - 1) / 2) * width
        axes.bar(
            places,
            values,
            width * 0.92,
            yerr=np.abs(ends - values),
            label=system.replace("_", " "),
            color=COLOURS[index % len(COLOURS)],
            error_kw={"elinewidth": 1, "ecolor": "#222222"},
        )
    axes.set_xticks(range(len(groups)), groups, rotation=20 if len(groups) > 5 else 0)
    axes.set_title(title)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#dddddd")
    axes.set_axisbelow(True)
    canvas.legend(frameon=False, ncols=min(len(systems), int(inches / 2)), loc="outside lower center")
    with whole(path) as partial:
        canvas.savefig(partial, format="svg", metadata={"Date": None})
