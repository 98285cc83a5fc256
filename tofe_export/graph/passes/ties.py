"""Takes the order of equal scores from TopK, for a runtime that keeps it as ONNX says: ONNX Runtime.

The body of TokenPartition sorts a second time, because not every runtime does (`graph/functions.py`).

Rules:
* in the body, `by_score` goes to where `ranked` went, and what then nobody reads is removed;
* the two operators, and every other value, stay as they are.
"""

from __future__ import annotations

import onnx_ir as ir

from tofe_export.graph.functions import is_operator
from tofe_export.model.operators import PARTITION

_SORTED_ONCE, _SORTED_TWICE = "by_score_int", "ranked"


def trust_ties(model: ir.Model) -> int:
    """Applies the rules above in place; how many nodes use the body."""
    changed = False
    for function in model.functions.values():
        values = {value.name: value for node in function for value in node.outputs}
        if function.name == PARTITION and _SORTED_TWICE in values:
            ir.convenience.replace_all_uses_with(values[_SORTED_TWICE], values[_SORTED_ONCE])
            _remove_unread(function)
            changed = True
    return sum(is_operator(node) and node.op_type == PARTITION for node in model.graph) if changed else 0


def _remove_unread(function: ir.Function) -> None:
    outputs = {id(value) for value in function.outputs}
    for node in reversed(list(function)):
        if not any(value.uses() or id(value) in outputs for value in node.outputs):
            function.remove(node, safe=True)
