"""Option values that are lists or pairs."""

from __future__ import annotations

import json
from typing import Any

import typer


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Turns "96,49,27" into (96, 49, 27).

    Raises:
        typer.BadParameter: anything else, naming the option.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of whole numbers; write it like 96,49,27.", param_hint=option
        ) from None


def keyword_arguments(text: str, option: str) -> dict[str, Any]:
    """Turns "img_size=64,qk_norm=true,global_pool=avg" into a dictionary; values are JSON, or else plain words.

    Raises:
        typer.BadParameter: a part without a name or a value, naming the option.
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name.isidentifier() and equals and value):
            raise typer.BadParameter(f"{part!r} is not NAME=VALUE; write img_size=64,patch_size=8.", param_hint=option)
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found
