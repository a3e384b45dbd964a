"""The house: which room may know which, and no circle between files. docs/how-it-works.md draws it."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from assistant.files import ROOT

# Lowest first: a room may know those before it, and never one after it.
ROOMS = {
    "assistant": [
        "limits",
        "files",
        "process",
        "system_packages",
        "latency",
        "sound",
        "model",
        "lanes",
        "voice",
        "commands",
    ],
    "train": ["workers", "command_line", "data", "synthesis", "labels", "stages", "questions", "evaluation"],
}
HOUSES = {"assistant": set(), "ui": {"assistant"}, "train": {"assistant"}}  # what each may know beside itself


def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    files = (file for house in HOUSES for file in (ROOT / house).rglob("*.py"))
    return {".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


MODULES = modules()


def imports(file: Path) -> Iterator[str]:
    """The modules of the product that a file imports, wherever in it, for types alone or not."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found = name if name in MODULES else name.rpartition(".")[0]
            if found in MODULES:
                yield found


GRAPH = {name: set(imports(file)) for name, file in MODULES.items()}


def test_a_file_knows_only_what_lies_below_it() -> None:
    wrong = []
    for name, others in GRAPH.items():
        house, _, inside = name.partition(".")
        for other in others:
            where, _, there = other.partition(".")
            if where != house and where not in HOUSES[house]:
                wrong.append(f"{name} imports {other}")
            if where == house and house in ROOMS and inside and there:  # a house's own __init__ may offer all of it
                mine, theirs = (ROOMS[house].index(part.split(".")[0]) for part in (inside, there))
                if theirs > mine:
                    wrong.append(f"{name} imports {other}, which lies above it")
    assert wrong == []


def test_no_file_knows_itself_through_others() -> None:
    try:
        TopologicalSorter({name: others for name, others in GRAPH.items() if "." in name}).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_every_file_lies_in_a_known_room_and_opens_with_a_sentence() -> None:
    for name, file in MODULES.items():
        house, _, inside = name.partition(".")
        if house in ROOMS and inside:
            assert inside.split(".")[0] in ROOMS[house], f"{name} is in no room that this test knows"
        first = (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").partition("\n")[0]
        assert first.endswith((".", ":")), f"{file} does not open with a sentence"


def test_the_rules_can_be_broken(tmp_path: Path) -> None:
    """What the tests above look at really finds imports, inside functions too."""
    file = tmp_path / "a.py"
    file.write_text("def f():\n    from ui import page\n    import assistant.lanes.lane\n    import json\n")
    assert list(imports(file)) == ["ui.page", "assistant.lanes.lane"]
