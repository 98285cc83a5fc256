"""What every verb refuses of its command line, whichever option it stands in."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand


class Verb(TyperCommand):
    """A verb that takes no empty text, which would mean the working directory, and no number that is none."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does it, and then the values as they were typed and as they were understood.

        Raises:
            typer.BadParameter: names the option.
        """
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))  # typer makes paths of them: "" becomes "."
        left = super().parse_args(ctx, args)
        parameters: list[Any] = list(self.params)
        for parameter in parameters:
            name = str(parameter.name)
            if parameter.default != "" and "" in _each(typed.get(name)):
                raise typer.BadParameter("it is empty.", ctx=ctx, param=parameter)
            for value in _each(ctx.params.get(name)):
                if isinstance(value, float) and not math.isfinite(value):
                    raise typer.BadParameter(f"{value} is no finite number.", ctx=ctx, param=parameter)
        return left


def _each(value: object) -> Iterator[object]:
    yield from value if isinstance(value, (list, tuple)) else (value,)
