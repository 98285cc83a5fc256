"""Shows or hides the per-stage values (`stage0.scores`, `stage0.perm`, `stage0.tokens`) as graph outputs.

The values keep their names inside a graph without taps, so a deployed file can be opened up for verification
exactly as it is, without exporting it again.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import onnx_ir as ir

_TAP = re.compile(r"stage(\d+)\.(scores|perm|tokens)")


def tap_name(stage: int, what: str) -> str:
    """Name of a stage's value in the graph; `what` is scores, perm or tokens."""
    return f"stage{stage}.{what}"


def show_taps(model: ir.Model) -> bool:
    """Makes every tapped value an output, after the logits."""
    graph = model.graph
    shown = {output.name for output in graph.outputs}
    hidden = [v for node in graph for v in node.outputs if _TAP.fullmatch(v.name or "") and v.name not in shown]
    graph.outputs.extend(hidden)
    return bool(hidden)


def hide_taps(model: ir.Model) -> bool:
    """Keeps only the outputs that are not taps."""
    keep = [output for output in model.graph.outputs if not _TAP.fullmatch(output.name or "")]
    changed = len(keep) != len(model.graph.outputs)
    model.graph.outputs[:] = keep
    return changed


@contextlib.contextmanager
def taps_kept(model: ir.Model) -> Iterator[None]:
    """Keeps passes from removing a tapped value that nothing reads, such as the last stage's perm."""
    before = list(model.graph.outputs)
    show_taps(model)
    try:
        yield
    finally:
        model.graph.outputs[:] = before


def tapped_stages(model: ir.Model) -> list[int]:
    """Indices of the stages that select tokens in this graph (a stage that keeps all of them does not)."""
    taps = (_TAP.fullmatch(value.name or "") for node in model.graph for value in node.outputs)
    return sorted({int(tap.group(1)) for tap in taps if tap and tap.group(2) == "perm"})
