"""Option values that are lists of whole numbers."""

from __future__ import annotations

import typer


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """ "96,49,27" -> (96, 49, 27).

    Raises:
        typer.BadParameter: anything else, naming the option.
    """
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of whole numbers; write it like 96,49,27.", param_hint=option
        ) from None
