"""Recipes: one commented TOML file says everything a training run depends on, and becomes a typed object."""

import tomllib
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from assistant.files import DEFAULT_LLM, read_text
from train.stages.loop import Loop

Recipe = TypeVar("Recipe")


@dataclass(frozen=True, kw_only=True)
class StageRecipe:
    """What the recipes of all stages hold."""

    features: tuple[Path, ...]  # folders written by train.data.features
    loop: Loop
    whisper: str = "whisper-base"
    llm: str = DEFAULT_LLM


class RecipeError(ValueError):
    """The recipe cannot be used; the message names the file, the entry and what is known."""


def read_recipe(kind: type[Recipe], path: Path, changes: list[str] | None = None) -> Recipe:
    """The recipe in a TOML file as a dataclass, one nested dataclass for each table.

    Parameters
    ----------
    changes: entries to set otherwise, as written in TOML with the table in front: `loop.steps=10`.

    Raises
    ------
    RecipeError
        Missing or unreadable file, unknown or missing entries, values of the wrong type.
    """
    try:
        entries = tomllib.loads(read_text(path))
        for change in changes or []:
            _merge(entries, tomllib.loads(change))
    except OSError as error:
        raise RecipeError(f"The recipe {path} cannot be read: {error.strerror}.") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"The recipe {path}, or a change to it, is not valid TOML: {error}.") from error
    except ValueError as error:
        raise RecipeError(f"The recipe {error}") from error
    return _build(kind, entries, str(path))


def _merge(entries: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(entries.get(key), dict):
            _merge(entries[key], value)
        else:
            entries[key] = value


def _build(kind: Any, entries: dict[str, Any], where: str) -> Any:
    types = get_type_hints(kind)
    if unknown := set(entries) - set(types):
        raise RecipeError(f"{where}: unknown {', '.join(sorted(unknown))}. Known: {', '.join(types)}.")
    values = {}
    for field in fields(kind):
        if field.name not in entries:
            if field.default is MISSING and field.default_factory is MISSING:
                raise RecipeError(f"{where}: {field.name} is missing.")
            continue
        values[field.name] = _convert(types[field.name], entries[field.name], f"{where}: {field.name}")
    return kind(**values)


def _convert(wanted: Any, value: Any, where: str) -> Any:
    if wanted is Any:
        return value
    if is_dataclass(wanted):
        if not isinstance(value, dict):
            raise RecipeError(f"{where} must be a table.")
        return _build(wanted, value, where)
    options = get_args(wanted)
    if options and type(None) in options:
        return _convert(next(option for option in options if option is not type(None)), value, where)
    origin = getattr(wanted, "__origin__", wanted)
    if origin in (tuple, list) and isinstance(value, list):
        return origin(_convert(options[0], entry, where) for entry in value)
    if origin is dict and isinstance(value, dict):
        return {key: _convert(options[1], entry, f"{where}.{key}") for key, entry in value.items()}
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if options and not isinstance(origin, type):  # Literal
        if value not in options:
            raise RecipeError(f"{where} must be one of {', '.join(map(str, options))}, not {value!r}.")
        return value
    if not isinstance(origin, type) or not isinstance(value, origin) or (origin is int and isinstance(value, bool)):
        raise RecipeError(f"{where} must be {getattr(wanted, '__name__', wanted)}, not {value!r}.")
    return value
