"""What all verbs have in common: values that are refused, mistyped names, and what the shell completes."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from typer import BadParameter
from typer.core import TyperCommand, TyperGroup

from tofe_export.files.names import calibration_recipes, training_recipes

_API_NAMES = {"export": "onnx", "build": "trt"}  # functions of the package, whose verbs are named after the file
_DATA = ("digits", "photos")
_RECIPES = sorted(calibration_recipes())
_COMPLETED = {
    "data": _DATA,
    "keep_from": (*_DATA, *_RECIPES),
    "recipe": _RECIPES,
    "backbone": [
        *(f"deit_{size}{kind}_patch16_224" for kind in ("", "_distilled") for size in ("tiny", "small", "base")),
        *(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")),
        *(f"lvvit_{size}" for size in "tsml"),
    ],  # timm knows hundreds, but takes seconds to name them
    "selector": ("mlp", "linear", "attention", "cls-attention"),
    "approximator": ("bottleneck", "identity", "block", "discard"),
    "device": ("auto", "cpu", "cuda"),
}
"""Option -> its values, which mean the same in every verb that has it; files and folders the shell completes itself."""


class Program(TyperGroup):
    """The verbs together; options about shell completion work without taking up room in the help."""

    def get_params(self, ctx: Any) -> list[Any]:
        """The options, those about completion out of sight."""
        parameters: list[Any] = super().get_params(ctx)
        for parameter in parameters:
            parameter.hidden = getattr(parameter, "hidden", False) or str(parameter.name).endswith("_completion")
        return parameters

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that `args` begins with; a verb that is spelt or means alike is suggested where there is none."""
        if args[0] in _API_NAMES:
            ctx.fail(f"No such command {args[0]!r}. Did you mean {_API_NAMES[args[0]]!r}?")
        return super().resolve_command(ctx, args)


class Verb(TyperCommand):
    """A verb that refuses empty text, which would mean the working directory, and numbers that are not finite."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        parameters: list[Any] = list(self.params)
        for parameter in parameters:
            if parameter.opts[0].startswith("-") and parameter.name in _COMPLETED:
                trains = (self.name, parameter.name) == ("train", "recipe")
                values = sorted(training_recipes()) if trains else _COMPLETED[parameter.name]
                parameter.shell_complete = functools.partial(_completions, values)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As typer does it, and then checks the values as they were typed and as they were understood.

        Raises:
            BadParameter: names the option.
        """
        typed, _, _ = self.make_parser(ctx).parse_args(args=list(args))  # typer makes paths of them: "" becomes "."
        left = super().parse_args(ctx, args)
        if ctx.resilient_parsing:  # the shell completes a line that is not yet whole
            return left
        parameters: list[Any] = list(self.params)
        for parameter in parameters:
            name = str(parameter.name)
            if parameter.default != "" and "" in _each(typed.get(name)):
                raise BadParameter("it is empty.", ctx=ctx, param=parameter)
            for value in _each(ctx.params.get(name)):
                if isinstance(value, float) and not math.isfinite(value):
                    raise BadParameter(f"{value} is not a finite number.", ctx=ctx, param=parameter)
        return left


def _completions(values: Iterable[str], context: Any, incomplete: str) -> list[SimpleNamespace]:
    """The values that begin with `incomplete`, as the shells' scripts read them."""
    return [SimpleNamespace(value=value, type="plain", help=None) for value in values if value.startswith(incomplete)]


def _each(value: object) -> Iterator[object]:
    yield from value if isinstance(value, (list, tuple)) else (value,)
