"""Recipes, read: by name or path, with the one parent that they extend, and with overrides."""

import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from ...errors import RecipeError, nearest
from .recipe import Recipe


def shipped() -> list[str]:
    """Names of the recipes inside the package."""
    folder = resources.files("relume.lab").joinpath("recipes")
    return sorted(
        f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")
    )


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by name or path, with its parent and the overrides.

    Args:
        source: The name of a shipped recipe, or a TOML file.
        overrides: `a.b=v`, v written as in TOML; a bare word is a string. A table takes the place
            of the one before: `encoders={}` leaves none.

    Raises:
        RecipeError: No such recipe, not TOML, an unknown key (the nearest is named), a wrong value.
    """
    values = _read(source)
    parent = values.get("extends")
    if parent is not None:
        inherited = _read(parent)
        if "extends" in inherited:
            raise RecipeError(
                f"{source} extends {parent}, which extends {inherited['extends']}: one level only."
            )
        values = _merged(inherited, values)
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise RecipeError(f"--set takes a.b=v, got {override!r}.")
        values = _with(values, key.strip().split("."), _value(text.strip()))
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise RecipeError(f"{source}: {_explained(error)}") from None
    recipe.build_schedule()
    return recipe


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError(f"{path} cannot be read: {error.strerror}.") from None
    elif str(source) in shipped():
        text = resources.files("relume.lab").joinpath(f"recipes/{source}.toml").read_text("utf-8")
    else:
        raise RecipeError(
            f"No recipe called {str(source)!r}; there is {', '.join(shipped()) or 'none'}."
            f"{nearest(str(source), shipped())}"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not TOML: {error}.") from None


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _with(table: Any, keys: Sequence[str], value: Any) -> Any:
    """The table with one value set; a table that is set stands in the place of the one before.
    A number names a row of a list that is there."""
    first, *rest = keys
    if isinstance(table, list):
        rows = [*cast(list[Any], table)]
        if not first.isdecimal() or int(first) >= len(rows):
            raise RecipeError(f"--set: a list of {len(rows)} has no row {first!r}.")
        rows[int(first)] = _with(rows[int(first)], rest, value) if rest else value
        return rows
    if rest:
        below = table.get(first)
        value = _with(below if isinstance(below, Mapping | list) else {}, rest, value)
    return {**table, first: value}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        return text


def _explained(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line."""
    first = error.errors()[0]
    path = [str(p) for p in first["loc"]]
    if first["type"] == "extra_forbidden":
        model: Any = Recipe
        for step in path[:-1]:
            model = model.model_fields[step].annotation if step in model.model_fields else model
        return f"{'.'.join(path)} is no key of a recipe.{nearest(path[-1], model.model_fields)}"
    if first["type"] == "recipe":  # our own words
        return f"{'.'.join(path)}: {first['msg']}."
    if first["type"] == "missing":
        return f"{'.'.join(path)} is missing."
    return f"{'.'.join(path)}: {first['msg'].lower()}, got {first['input']!r}."
