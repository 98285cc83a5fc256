"""The values that the shell completes after an option; files and folders it completes itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tofe_export.files.names import shipped_recipes

_DATA = ("digits", "photos")
_BACKBONES = tuple(
    [f"deit_{size}_patch16_224" for size in ("tiny", "small", "base")]
    + [f"deit_{size}_distilled_patch16_224" for size in ("tiny", "small", "base")]
    + [f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large")]
    + ["lvvit_t", "lvvit_s", "lvvit_m", "lvvit_l"]
)  # timm knows hundreds, but takes seconds to name them


def _recipes() -> tuple[str, ...]:
    return tuple(sorted(shipped_recipes()))


_VALUES: dict[str, Callable[[], Sequence[str]]] = {
    "data": lambda: _DATA,
    "keep_from": lambda: (*_DATA, *_recipes()),
    "recipe": _recipes,
    "backbone": lambda: _BACKBONES,
    "selector": lambda: ("mlp", "linear", "attention", "cls-attention"),
    "approximator": lambda: ("bottleneck", "identity", "block", "discard"),
    "provider": lambda: ("cpu", "cuda"),
    "device": lambda: ("auto", "cpu", "cuda"),
}
"""Parameter -> its values, which mean the same in every verb that has it."""


@dataclass(frozen=True)
class Completion:
    """A value, as the shells' scripts read it."""

    value: str
    type: str = "plain"
    help: str | None = None


def complete_values(parameters: Sequence[Any]) -> None:
    """Lets the shell complete the values of those parameters of a verb that have known ones."""
    for parameter in parameters:
        values = _VALUES.get(str(parameter.name))
        if values is not None and parameter.opts[0].startswith("-"):
            parameter.shell_complete = _completer(values)


def _completer(values: Callable[[], Sequence[str]]) -> Callable[[Any, str], list[Completion]]:
    def complete(context: Any, incomplete: str) -> list[Completion]:
        return [Completion(value) for value in values() if value.startswith(incomplete)]

    return complete
