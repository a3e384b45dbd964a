"""Recipes: every one in the repository loads and opens with its command; what is wrong with one is said in words."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from assistant.files import ROOT
from train.stages.adaptation import AdaptationRecipe
from train.stages.loop import Loop
from train.stages.recipe import RecipeError, read_recipe

RECIPES = sorted((ROOT / "train" / "recipes").rglob("*.toml"))


@dataclass(frozen=True)
class Small:
    folders: tuple[Path, ...]
    loop: Loop
    rate: float = 0.1
    kind: Literal["short", "long"] = "short"
    start: Path | None = None
    shape: dict[str, Any] = field(default_factory=dict)


def write(folder: Path, text: str) -> Path:
    (folder / "recipe.toml").write_text(text)
    return folder / "recipe.toml"


GOOD = 'folders = ["a", "b"]\nrate = 1\nshape = {width = 3}\n[loop]\nsteps = 7\n'


def test_a_recipe_is_typed_and_can_be_changed(tmp_path: Path) -> None:
    path = write(tmp_path, GOOD)
    recipe = read_recipe(Small, path)
    assert recipe == Small((Path("a"), Path("b")), Loop(7), 1.0, shape={"width": 3})
    changed = read_recipe(Small, path, ["loop.steps=9", 'kind="long"', 'start="c"', "shape.width=4"])
    assert changed == Small((Path("a"), Path("b")), Loop(9), 1.0, "long", Path("c"), {"width": 4})


@pytest.mark.parametrize(
    ("text", "change", "said"),
    [
        (GOOD + "step = 3\n", None, r"loop: unknown step\. Known: steps"),
        (GOOD.replace("steps = 7", ""), None, r"loop: steps is missing"),
        (GOOD.replace("steps = 7", "steps = true"), None, r"steps must be int, not True"),
        (GOOD.replace("steps = 7", 'steps = "7"'), None, r"steps must be int, not '7'"),
        ('kind = "middling"\n' + GOOD, None, r"kind must be one of short, long, not 'middling'"),
        (GOOD, "loop=3", r"loop must be a table"),
        (GOOD, "folders=[1]", r"folders must be Path, not 1"),
        (GOOD, "loop.steps=", r"not valid TOML"),
        ("= nonsense", None, r"not valid TOML"),
    ],
)
def test_what_is_wrong_is_said_in_words(tmp_path: Path, text: str, change: str | None, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        read_recipe(Small, write(tmp_path, text), [change] if change else None)


def test_a_missing_recipe_is_said_in_words(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        read_recipe(Small, tmp_path / "none.toml")


def kind_of(path: Path) -> tuple[str, type[Any]]:
    """The stage that a recipe's first line launches, and what it is read as."""
    from train.stages.instruction_tuning import TuningRecipe

    first = path.read_text("utf-8").splitlines()[0]
    where = path.relative_to(ROOT).as_posix()
    command = re.fullmatch(rf"# python -m train\.stages\.(\w+) {where} --out runs/[\w/]+", first)
    assert command, f"{where} does not open with the command that launches it"
    kinds: dict[str, type[Any]] = {"adaptation": AdaptationRecipe, "instruction_tuning": TuningRecipe}
    return command[1], kinds[command[1]]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_opens_with_its_command(path: Path) -> None:
    _, kind = kind_of(path)
    assert read_recipe(kind, path).loop.steps > 0


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.parent.name == "recipes"], ids=lambda path: path.stem
)
def test_the_training_guide_builds_every_folder_that_a_recipe_names(path: Path) -> None:
    guide = (ROOT / "docs" / "training.md").read_text("utf-8")
    recipe = read_recipe(kind_of(path)[1], path)
    for folder in recipe.features:
        assert re.search(rf"train\.data\.features \S+ --out {folder}\b", guide), f"{folder} is built nowhere"
    for manifest in getattr(recipe, "self_powered", ()):
        assert f"--out {manifest.parent}" in guide, f"{manifest} is written nowhere"


STUB = """#!{python}
import sys
from pathlib import Path
module, out = sys.argv[2], Path(sys.argv[sys.argv.index("--out") + 1])
with open("calls.txt", "a") as calls:
    print(*sys.argv[2:], file=calls)
made = {{"averaging": "config.json", "adaptation": "", "features": ""}}.get(module.split(".")[-1], "manifest.jsonl")
target = out if out.suffix or not made else out / made
target.parent.mkdir(parents=True, exist_ok=True)
target.touch() if target.suffix else target.mkdir(exist_ok=True)
"""


@pytest.mark.skipif(os.name == "nt", reason="a shell script")
def test_the_recipe_of_v1_makes_all_that_its_runs_name_and_goes_on_where_it_was(tmp_path: Path) -> None:
    """Its commands are not run here, but each must exist, know its options, and be fed by the ones before."""
    shutil.copytree(ROOT / "train" / "recipes" / "v1", tmp_path / "train" / "recipes" / "v1")
    stub = tmp_path / "python"
    stub.write_text(STUB.format(python=sys.executable))
    stub.chmod(0o755)

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", str(tmp_path / "train" / "recipes" / "v1" / "make.sh"), *arguments]
        environment = {**os.environ, "PYTHON": str(stub), "BF16": "yes"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert "DATA" in make().stderr
    refused = make("data")
    assert refused.returncode == 2 and "data/text is not there" in refused.stderr
    (tmp_path / "data" / "text").mkdir(parents=True)
    for name in ("librispeech_251_speakers", "speechocean762", "kathleen_arctic", "fsdd_digits"):
        (tmp_path / "data" / "speech" / "train" / name).mkdir(parents=True)
        (tmp_path / "data" / "speech" / "train" / name / "manifest.jsonl").touch()
    (tmp_path / "r-cran-janeaustenr_1_all.deb").touch()
    done = make("data")
    assert done.returncode == 0, done.stderr
    calls = [line.split() for line in (tmp_path / "calls.txt").read_text().splitlines()]
    outs = {call[call.index("--out") + 1] for call in calls}
    common = (ROOT / "train" / "command_line.py").read_text("utf-8") + (ROOT / "train/stages/stage.py").read_text(
        "utf-8"
    )
    for module, *options in calls:
        source = (ROOT / module.replace(".", "/")).with_suffix(".py").read_text("utf-8") + common
        for option in (option for option in options if option.startswith("--")):
            assert f'"{option}"' in source, f"{module} has no option {option}"
        for given in (option for option in options if option.startswith("runs/") and option not in outs):
            assert any(given.startswith(f"{out}/") for out in outs), f"{given} is made by nothing"
    for name in ("first", "second", "third"):
        recipe = read_recipe(AdaptationRecipe, ROOT / "train" / "recipes" / "v1" / f"{name}.toml")
        assert {str(folder) for folder in recipe.features} <= outs
        assert recipe.start is None or str(recipe.start) in outs
    assert make("data").returncode == 0
    again = (tmp_path / "calls.txt").read_text().splitlines()[len(calls) :]
    assert {line.split()[0] for line in again} == {"train.data.features", "train.stages.adaptation"}


def test_vanilla_and_self_powered_differ_in_their_targets_alone() -> None:
    from dataclasses import replace

    from train.stages.instruction_tuning import TuningRecipe

    vanilla, powered = (
        read_recipe(TuningRecipe, ROOT / "train" / "recipes" / f"{name}.toml") for name in ("vanilla", "self_powered")
    )
    assert replace(vanilla, targets="self-powered") == powered
