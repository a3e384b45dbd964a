"""The report's pictures, however many systems stand side by side."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from train.evaluation.figures import ALL, Figure
from train.evaluation.plots import COLOURS, draw_plots

SVG = "{http://www.w3.org/2000/svg}"


def bias(tasks: list[str], systems: list[str]) -> list[Figure]:
    return [
        Figure("following", task, ALL, "real", system, "merely_transcribed", 9, 0.5, 0.4, 0.6)
        for task in tasks
        for system in systems
    ]


@pytest.mark.parametrize("count", [3, 8])
def test_the_legend_stays_inside_the_picture(tmp_path: Path, count: int) -> None:
    systems = [f"self_powered_{number}" for number in range(count)]
    ((name, _),) = draw_plots(tmp_path, bias(["intent", "answer"], systems))
    picture = ElementTree.parse(tmp_path / name).getroot()
    width, height = map(float, picture.attrib["viewBox"].split()[2:])
    (legend,) = [group for group in picture.iter(f"{SVG}g") if group.attrib.get("id") == "legend_1"]
    placed = " ".join(group.attrib.get("transform", "") for group in legend.iter(f"{SVG}g"))
    places = [tuple(map(float, pair)) for pair in re.findall(r"translate\(([-\d.]+) ([-\d.]+)\)", placed)]
    assert len(places) >= count
    assert all(0 <= x <= 0.85 * width and 0 <= y <= height for x, y in places)  # names begin there
    styles = {path.attrib["style"] for path in legend.iter(f"{SVG}path") if "fill: #" in path.attrib.get("style", "")}
    assert len(styles) == count <= len(COLOURS)


def test_all_tasks_together_come_last(tmp_path: Path) -> None:
    draw_plots(tmp_path, bias(["intent", ALL, "answer"], ["end_to_end"]))
    labels = re.findall(r"<!-- (\w+) -->", (tmp_path / "bias.svg").read_text("utf-8"))
    assert [label for label in labels if label in ("intent", "answer", ALL)] == ["intent", "answer", ALL]
