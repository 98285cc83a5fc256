"""The same network in the form that a runtime runs best: which passes make it, in which order.

What was tried and gained nothing is not here (docs/speed.md).
"""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from tofe_export.documents.fields import Target
from tofe_export.errors import InputError, brief
from tofe_export.graph.passes.attention import fuse_attention
from tofe_export.graph.passes.inline import inline_operators
from tofe_export.graph.passes.ties import trust_ties

Pass = Callable[[ir.Model], int]
"""Rewrites a model in place and returns how many places it changed."""

_PASSES: dict[Target, dict[str, Pass]] = {
    "any": {"inline": inline_operators},
    "onnxruntime": {"attention": fuse_attention, "ties": trust_ties},
    "openvino": {"inline": inline_operators},
}
TARGETS: tuple[Target, ...] = tuple(_PASSES)


def require_target(target: str) -> Target:
    """The target, if there is one of that name; raises InputError otherwise."""
    for known in TARGETS:
        if known == target:
            return known
    raise InputError(
        f"`target` is {brief(target)}.", f"Give {', '.join(TARGETS[:-1])} or {TARGETS[-1]}.", code="target-unknown"
    )


def rewrite_for(model: ir.Model, target: Target) -> dict[str, int]:
    """Rewrites an exported model in place, ToFe or dense; says which passes ran, and in how many places."""
    return {name: apply(model) for name, apply in _PASSES[target].items()}
