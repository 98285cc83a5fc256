"""Writes the functions of a file out in standard operators, for readers that know no model-local functions.

Rules:
* every node of domain `tofe` becomes the nodes of its body, and the file defines no function any more;
* a new node is called `<operator node>/<OpType>`, with `_1`, `_2`, ... for repeats, and a new value
  `<operator node>/<name in the body>`; what the operator computed keeps its name;
* constants become initializers, and what depends on constants alone is computed.

Afterwards the TensorRT plugins have nothing to take hold of. Keep counts can still be read (`kept_counts`).
"""

from __future__ import annotations

import re
from collections import Counter

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, LiftConstantsToInitializersPass

from tofe_export.graph.functions import is_operator
from tofe_export.graph.passes.fold import fold_weights
from tofe_export.graph.passes.taps import taps_kept
from tofe_export.graph.stored import tensor_of
from tofe_export.model.operators import DOMAIN, PARTITION

_KEPT_END = "kept_end"
"""In the body of TokenPartition, the number of rows that are kept, prefix included (`graph/functions.py`)."""
_COPY = re.compile(r"_\d+$")
"""What inlining appends to a name that was there before; no name in the bodies ends so."""


def inline_operators(model: ir.Model) -> int:
    """Applies the rules above in place; how many nodes were written out."""
    nodes = [node for node in model.graph if node.domain == DOMAIN]
    calls = [(str(node.name), [str(value.name) for value in node.outputs]) for node in nodes]
    known = set(model.graph)
    with taps_kept(model):
        InlinePass()(model)
        _name_after_calls([node for node in model.graph if node not in known], calls)
        model.functions.clear()
        model.opset_imports.pop(DOMAIN, None)
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        fold_weights(model)
    return len(calls)


def kept_counts(model: ir.Model, prefix: int) -> list[int]:
    """How many tokens each stage of a graph keeps, in order, whether its operators are written out or not."""
    counts = []
    for node in model.graph:
        if is_operator(node) and node.op_type == PARTITION:
            counts.append(int(node.attributes.get_int("keep")))
        elif node.op_type == "Slice" and _is_kept_end(end := node.inputs[2]):
            counts.append(int(tensor_of(end).numpy().item()) - prefix)
    return counts


def _is_kept_end(value: ir.Value | None) -> bool:
    return value is not None and value.is_initializer() and (value.name or "").endswith(f"/{_KEPT_END}")


def _name_after_calls(nodes: list[ir.Node], calls: list[tuple[str, list[str]]]) -> None:
    """Names the nodes that came in, in order, each run of them after the operator node whose last output ends it."""
    waiting = iter(calls)
    call, outputs = next(waiting, ("", []))
    repeats: Counter[str] = Counter()
    left = set(outputs)
    for node in nodes:
        if not left:
            call, outputs = next(waiting)
            repeats, left = Counter(), set(outputs)
        base = f"{call}/{node.op_type}"
        node.name = base if not repeats[base] else f"{base}_{repeats[base]}"
        repeats[base] += 1
        for value in node.outputs:
            if value.name in left:
                left.discard(value.name)
            else:
                value.name = f"{call}/{_COPY.sub('', str(value.name))}"
