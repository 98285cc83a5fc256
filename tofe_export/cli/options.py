"""The options that stand for arguments: a message below cli/ says `keep_from`, the terminal says --keep-from."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

_OTHER_NAMES = {
    "batches": "batch",
    "changes": "set_",
    "compute_capabilities": "compute_capability",
    "dense_output": "features",
    "hardware": "hardware_compat",
    "image_size": "img_size",
    "path": "output",
    "tolerances": "tolerance",
    "workspace_mib": "workspace",
}
"""Argument -> the parameter of a verb that stands for it, where its name is another."""

_KEY = re.compile(r"[a-z]+(\.[a-z0-9_]+)+")
"""Of a recipe, without an argument of its own: `run.precision` is --set run.precision."""
_QUOTED = re.compile(r"`([^`\n]+)`")


@dataclass(frozen=True)
class Option:
    """An option, and the one that switches it off where there is one."""

    on: str
    off: str = ""


def as_options(text: str, names: Iterable[object] = ()) -> str:
    """`text` with the option in place of each argument in backticks; backticks around anything else vanish.

    Values become those of the option: `keep=(8, 5, 3)` is --keep 8,5,3, and `fuse_token=False` is --no-fuse-token.

    Args:
        text: a message or a next step.
        names: parts of it that the user wrote, files above all, which stay as they are.
    """
    own = [re.escape(name) for name in map(str, names) if "`" in name]
    parts = re.split(f"({'|'.join(own)})", text) if own else [text]
    return "".join(part if index % 2 else _QUOTED.sub(_replaced, part) for index, part in enumerate(parts))


def _replaced(match: re.Match[str]) -> str:
    name, _, text = match[1].partition("=")
    if name == "precision" and text:
        return f"--{ast.literal_eval(text)}"
    option = Option(f"{options()['changes'].on} {name}") if _KEY.fullmatch(name) else options().get(name)
    if option is None or not text:
        return match[1] if option is None else option.on
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # a placeholder
        return f"{option.on} {text}"
    if isinstance(value, bool):
        return option.on if value else option.off
    if isinstance(value, tuple):
        return f"{option.on} {('x' if name == 'image_size' else ',').join(map(str, value))}"
    return f"{option.on} {shlex.quote(str(value))}"


@functools.cache
def options() -> dict[str, Option]:
    """Argument -> option, over all verbs: an option means the same in each."""
    import typer

    from tofe_export.cli.app import app

    by_argument: dict[str, Option] = {}
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for parameter in (parameter for verb in verbs.values() for parameter in verb.params):
        if long := [name for name in parameter.opts if name.startswith("--")]:
            by_argument[str(parameter.name)] = Option(long[0], *parameter.secondary_opts[:1])
    return by_argument | {name: by_argument[other] for name, other in _OTHER_NAMES.items()}
