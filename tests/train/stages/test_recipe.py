"""Recipes: every one in the repository loads and opens with its command; what is wrong with one is said in words."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from assistant.files import ROOT
from train.stages.adaptation import AdaptationRecipe
from train.stages.loop import Loop
from train.stages.recipe import RecipeError, read_recipe

RECIPES = sorted((ROOT / "train" / "recipes").glob("*.toml"))


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


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_opens_with_its_command(path: Path) -> None:
    from train.stages.instruction_tuning import TuningRecipe

    first = path.read_text("utf-8").splitlines()[0]
    command = re.fullmatch(rf"# python -m train\.stages\.(\w+) train/recipes/{path.name} --out runs/\w+", first)
    assert command, f"{path.name} does not open with the command that launches it"
    kinds: dict[str, type[Any]] = {"adaptation": AdaptationRecipe, "instruction_tuning": TuningRecipe}
    recipe = read_recipe(kinds[command[1]], path)
    assert recipe.loop.steps > 0


def test_vanilla_and_self_powered_differ_in_their_targets_alone() -> None:
    from dataclasses import replace

    from train.stages.instruction_tuning import TuningRecipe

    vanilla, powered = (
        read_recipe(TuningRecipe, ROOT / "train" / "recipes" / f"{name}.toml") for name in ("vanilla", "self_powered")
    )
    assert replace(vanilla, targets="self-powered") == powered
