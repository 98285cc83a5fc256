"""Calibration recipes: TOML files that say how a model is calibrated and what is quantized.

One file serves both kinds of calibration: the ranges of INT8 and FP8, and the keep counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tofe_export.documents.base import reason_of
from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.errors import InputError, brief, nearest
from tofe_export.files.names import expanded, readable, shipped_recipes
from tofe_export.files.reading import read_toml, require_file


def recipe_file(recipe: CalibrationRecipe | Path | str | None) -> Path | None:
    """The user's own file that `recipe` names; None for a recipe that is shipped or in memory."""
    if recipe is None or isinstance(recipe, CalibrationRecipe):
        return None
    path = expanded(str(recipe))
    return path if path.suffix == ".toml" else None


def read_recipe(recipe: CalibrationRecipe | Path | str) -> CalibrationRecipe:
    """The recipe in a file, or a shipped one by its name; a recipe that has been read is returned as it is.

    Raises:
        InputError: no such recipe, not TOML, or a key or value that cannot be used, named.
    """
    if isinstance(recipe, CalibrationRecipe):
        return recipe
    path, known = recipe_file(recipe), shipped_recipes()
    if path is None:
        name = str(recipe)
        if name not in known:
            raise InputError(
                f"There is no recipe {name!r}.",
                f"Name a .toml file, or one of: {', '.join(known) or 'none'}.",
                code="recipe-unknown",
                name=name,
            )
        path = known[name]
    require_file(path, f"Recipes that come with the program: {', '.join(known)}.")
    return parse_recipe(read_toml(path, "Compare it with calibration/digits.toml."), path)


def parse_recipe(tables: Mapping[str, Any], path: Path) -> CalibrationRecipe:
    """A recipe from the tables of a TOML file.

    Raises:
        InputError: a key or value that cannot be used, named.
    """
    if "name" in tables:
        raise _unknown("name", CalibrationRecipe, path)
    try:
        return CalibrationRecipe.model_validate({"name": readable(path.stem), **tables})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        raise _refusal(first, path) from None


def _refusal(problem: ErrorDetails, path: Path) -> InputError:
    """The first thing that is wrong with a recipe, in the user's words."""
    place = problem["loc"]
    key, reason, value = ".".join(map(str, place)), reason_of(problem), brief(problem["input"])
    if problem["type"] == "extra_forbidden":
        return _unknown(key, _table(place), path)
    if problem["type"] == "missing":
        return InputError(
            f"{path} has no {key}.",
            'It says which images: source = "digits", or a folder, below [data].',
            code="recipe-missing-key",
            path=path,
            key=key,
        )
    # A check of a whole table names the key itself.
    wrong = f"{key} is {value}, but {reason}" if reason.startswith("it should") else f"{key}.{reason}"
    return InputError(f"{path}: {wrong}.", "Correct the recipe.", code="recipe-value", path=path, key=key)


def _unknown(key: str, table: type[BaseModel], path: Path) -> InputError:
    known = [name for name in table.model_fields if (table, name) != (CalibrationRecipe, "name")]
    return InputError(
        f"{path} has the unknown key {key}.",
        f"Did you mean {nearest(key.rpartition('.')[2], known)}?",
        code="recipe-unknown-key",
        path=path,
        key=key,
    )


def _table(place: tuple[int | str, ...]) -> type[BaseModel]:
    """The class of the table that holds the key at `place`."""
    table: type[BaseModel] = CalibrationRecipe
    for name in place[:-1]:
        kind = table.model_fields[str(name)].annotation
        assert isinstance(kind, type)
        table = kind
    return table
