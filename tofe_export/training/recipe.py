"""Training recipes: a TOML file or a shipped one by its name, and values that a run replaces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tofe_export.documents.base import reason_of
from tofe_export.documents.toml import Shelf
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import InputError, brief, nearest
from tofe_export.files.names import training_recipes
from tofe_export.model.config import ToFeConfig

ARGUMENTS = {
    "backbone": "network.backbone",
    "backbone_args": "network.backbone_args",
    "stages": "network.stages",
    "selector": "network.selector",
    "approximator": "network.approximator",
    "dense_output": "network.dense_output",
    "budget": "tofe.budget",
    "epochs": "tofe.epochs",
    "dense_epochs": "dense.epochs",
    "batch_size": "run.batch_size",
    "lr": "tofe.lr",
    "backbone_lr_scale": "tofe.backbone_lr_scale",
    "dense_lr": "dense.lr",
    "weight_decay": "optimizer.weight_decay",
    "seed": "run.seed",
}
"""Argument -> the key of the recipe that it stands for."""


def read_recipe(
    recipe: TrainingRecipe | Path | str,
    arguments: Mapping[str, object] | None = None,
    changes: Mapping[str, object] | None = None,
) -> TrainingRecipe:
    """A recipe, with other values for some of its keys.

    Args:
        recipe: a TOML file, the name of a shipped recipe, or one that has been read.
        arguments: values by argument, see `ARGUMENTS`; None leaves the recipe's. Another backbone than the recipe's
            leaves out its `backbone_args` and `stages`, which fit its own.
        changes: values by key, such as "run.precision".

    Raises:
        InputError: no such recipe, not TOML, a key that there is not, or a value that cannot be used, named.
    """
    shelf = Shelf(training_recipes(), "recipes/finetune.toml")
    read = recipe if isinstance(recipe, TrainingRecipe) else shelf.read(TrainingRecipe, recipe)
    given = {name: value for name, value in (arguments or {}).items() if value is not None}
    plain = read.model_dump()
    if given.get("backbone", read.network.backbone) != read.network.backbone:
        plain["network"] |= {"backbone_args": {}, "stages": ()}
    wanted = {ARGUMENTS[name]: value for name, value in given.items()}
    for name in given:
        if (key := ARGUMENTS[name]) in (changes or {}):
            raise InputError(
                f"{key} is given twice: in `changes` and as `{name}`.", "Give it once.", code="given-twice", key=key
            )
    for key, value in {**wanted, **(changes or {})}.items():
        _put(plain, key, value)
    try:
        return TrainingRecipe.model_validate(plain)
    except ValidationError as error:
        raise _refusal(error, {ARGUMENTS[name]: name for name in given}) from None


def config_of(recipe: TrainingRecipe) -> ToFeConfig:
    """The network that it describes.

    Raises:
        InputError: a name of a part that there is not, or two that do not go together.
    """
    network = recipe.network
    return ToFeConfig(
        network.backbone,
        dict(network.backbone_args),
        network.stages,
        network.selector,
        network.approximator,
        network.dense_output,
    )


def values_by_key(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe by dotted key, such as "run.precision"; the name of its file is none of them.

    Args:
        recipe: `TrainingRecipe.to_dict()`, or what a saved state says of one.
    """
    tables = {name: table for name, table in recipe.items() if isinstance(table, Mapping)}
    return {f"{name}.{key}": value for name, table in tables.items() for key, value in table.items()}


def _put(plain: dict[str, Any], key: str, value: object) -> None:
    """Sets the value of a dotted key; below `backbone_args` any name is one."""
    *tables, last = key.split(".")
    free = tables == ["network", "backbone_args"]
    known = {*values_by_key(plain), *([key] if free else [])}
    if key not in known:
        raise InputError(
            f"Recipes have no key {key!r}.", f"Did you mean {nearest(key, known)}?", code="recipe-unknown-key", key=key
        )
    table = plain
    for name in tables:
        table = table[name]
    table[last] = value


def _refusal(error: ValidationError, names: Mapping[str, str]) -> InputError:
    """What is wrong with a value that was given beside the recipe; `names` are those of arguments, by key."""
    first = error.errors(include_url=False, include_context=False)[0]
    place, reason = first["loc"], reason_of(first)
    if reason.startswith("it should"):
        key = ".".join(map(str, place[:2]))
        value = first["input"]
        said = f"is {brief(value)}, but it must{reason.removeprefix('it should')}"
    else:  # a check of a whole table begins with the key's name
        field, _, said = reason.partition(" ")
        key, value = f"{place[0]}.{field}", None
    name = names.get(key, key)
    return InputError(
        f"`{name}` {said}.",
        "Give another value.",
        code="out-of-range",
        name=name,
        **({} if value is None else {"value": value}),
    )
