"""The documents: what they name exists, what they link to is there, and a person can read their lines."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from assistant.files import ROOT, SAMPLES

CARD = ROOT / "assets" / "checkpoints" / "v1" / "README.md"
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "experiments").glob("*.md"), CARD]
COMMAND = re.compile(
    r"(?:python|accelerate launch|torchrun[^`\n]*) -m ((?:train|assistant|tests|docs)\.[\w.]+)([^`\n]*)"
)
LONGEST = 120  # characters of a line that is neither a table's nor a program's

each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())


def prose(document: Path) -> list[str]:
    """The lines of a document outside programs."""
    return re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL).splitlines()


def heading_names(document: Path) -> set[str]:
    """The anchors of a document's headings, as they are made on the web."""
    headings = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_document
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", document.read_text("utf-8")):
        path, _, anchor = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{target} leads nowhere"
        assert not anchor or anchor in heading_names(found), f"{target}: no such heading"


@each_document
def test_commands_are_of_modules_that_know_their_options(document: Path) -> None:
    common = "".join((ROOT / f"train/{name}.py").read_text("utf-8") for name in ("command_line", "stages/stage"))
    joined = document.read_text("utf-8").replace("\\\n", " ")
    for module, rest in COMMAND.findall(joined):
        file = (ROOT / module.replace(".", "/")).with_suffix(".py")
        assert file.is_file(), f"{document.name} names {module}"
        known = file.read_text("utf-8") + common
        for option in (word.split("=")[0] for word in shlex.split(rest.replace("'", '"')) if word.startswith("--")):
            assert f'"{option}"' in known, f"{document.name}: {module} has no option {option}"


@each_document
def test_files_that_are_named_exist(document: Path) -> None:
    named = re.findall(r"`((?:assistant|ui|train|tests|assets|docs)/[\w/.-]+\.\w+)`", document.read_text("utf-8"))
    gone = {"train/label_shift.py"}  # named as part of the history
    assert [name for name in named if name not in gone and not (ROOT / name).exists()] == []


@each_document
def test_lines_can_be_read(document: Path) -> None:
    long = [line for line in prose(document) if len(line) > LONGEST and not line.lstrip().startswith(("|", "!["))]
    assert long == []


def test_every_experiment_has_its_verdict_in_the_table() -> None:
    table = (ROOT / "docs" / "experiments.md").read_text("utf-8")
    details = sorted(path.name for path in (ROOT / "docs" / "experiments").glob("*.md"))
    assert details and [name for name in details if f"(experiments/{name})" not in table] == []


@pytest.mark.weights
def test_the_example_answers() -> None:
    command = [sys.executable, "-m", "docs.examples.two_lanes", str(SAMPLES / "capital.flac")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout.count("Paris") == 2 and done.stdout.count("first word after") == 2
