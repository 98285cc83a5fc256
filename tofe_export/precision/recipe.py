"""Calibration recipes: TOML files that say how a model is calibrated and what is quantized.

One file serves both kinds of calibration: the ranges of INT8 and FP8, and the keep counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.documents.toml import Shelf, own_file, parse_tables
from tofe_export.files.names import calibration_recipes

_MISSING = 'It says which images: source = "digits", or a folder, below [data].'


def recipe_file(recipe: CalibrationRecipe | Path | str | None) -> Path | None:
    """The user's own file that `recipe` names; None for a recipe that is shipped or in memory."""
    return None if recipe is None or isinstance(recipe, CalibrationRecipe) else own_file(recipe)


def read_recipe(recipe: CalibrationRecipe | Path | str) -> CalibrationRecipe:
    """The recipe in a file, or a shipped one by its name; a recipe that has been read is returned as it is.

    Raises:
        InputError: no such recipe, not TOML, or a key or value that cannot be used, named.
    """
    if isinstance(recipe, CalibrationRecipe):
        return recipe
    return Shelf(calibration_recipes(), "calibration/digits.toml", _MISSING).read(CalibrationRecipe, recipe)


def parse_recipe(tables: Mapping[str, Any], path: Path) -> CalibrationRecipe:
    """A recipe from the tables of a TOML file.

    Raises:
        InputError: a key or value that cannot be used, named.
    """
    return parse_tables(CalibrationRecipe, tables, path, _MISSING)
