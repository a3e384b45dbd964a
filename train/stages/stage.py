"""One stage as a command: a recipe, where to write, entries of the recipe to change."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from train.command_line import command_line, told
from train.stages.loop import Objective, TrainingError, fit
from train.stages.recipe import StageRecipe, read_recipe

Kind = TypeVar("Kind", bound=StageRecipe)


def run(description: str | None, kind: type[Kind], objective: Callable[[Kind], Objective]) -> None:
    """Read the recipe that the command line names, and train what it asks for."""
    parser = command_line(description)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="change an entry, as in loop.steps=10")
    arguments = parser.parse_args()
    with told():
        recipe = read_recipe(kind, arguments.recipe, arguments.set)
        try:
            fit(objective(recipe), recipe.loop, arguments.out)
        except (RuntimeError, ValueError) as error:
            if "DataLoader worker" not in str(error):
                raise
            reason = str(error).strip().splitlines()[-1]  # what comes before is the worker's traceback
            raise TrainingError(f"A process that prepares batches has failed: {reason}") from error
