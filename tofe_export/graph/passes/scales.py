"""Moves constant divisors into the linear layer before them: LV-ViT divides every residual branch by a constant.

Rules:
* the pattern is Div(Add(MatMul(x, W), b), c) with W and b initializers and c a constant of one element;
* nothing else reads what lies between;
* it becomes Add(MatMul(x, W / c), b / c), exact for powers of two, else within a rounding.

Precondition: weights are initializers (`fold_weights`). Two nodes a block fewer, in the dense baseline alike.
"""

from __future__ import annotations

import onnx_ir as ir

from tofe_export.graph.matching import constant, only_producer
from tofe_export.graph.stored import add_initializer, tensor_of


def fold_scales(model: ir.Model) -> bool:
    """Applies the rules above in place."""
    changed = False
    for node in list(model.graph):
        inputs = _linear_before(node)
        if inputs is None:
            continue
        total, divisor = node.inputs[0], node.inputs[1]
        assert total is not None
        assert divisor is not None
        for layer, index in inputs:
            _divide(model.graph, layer, index, tensor_of(divisor).numpy().item())
        ir.convenience.replace_all_uses_with(node.outputs[0], total)
        model.graph.remove(node, safe=True)
        if not divisor.uses():
            del model.graph.initializers[str(divisor.name)]
        changed = True
    return changed


def _linear_before(node: ir.Node) -> list[tuple[ir.Node, int]] | None:
    """Where the weight and the bias are read that a division by a constant can move into, as (node, input)."""
    divisor = constant(node.inputs[1]) if node.op_type == "Div" else None
    if divisor is None or divisor.size != 1 or node.outputs[0].is_graph_output():
        return None
    add = only_producer(node.inputs[0], "Add")
    if add is None:
        return None
    bias = next((index for index in (0, 1) if constant(add.inputs[index]) is not None), None)
    matmul = None if bias is None else only_producer(add.inputs[1 - bias], "MatMul")
    if bias is None or matmul is None or constant(matmul.inputs[1]) is None:
        return None
    return [(matmul, 1), (add, bias)]


def _divide(graph: ir.Graph, node: ir.Node, index: int, divisor: float) -> None:
    """Divides one constant input; where others read it too (equal biases are stored once), they keep theirs."""
    value = node.inputs[index]
    assert value is not None
    values = tensor_of(value).numpy()
    scaled = (values / divisor).astype(values.dtype)
    if len(value.uses()) == 1:
        value.const_value = ir.tensor(scaled, name=value.name)
        return
    name = f"{node.outputs[0].name}_divided"  # the pass that names things after modules comes later
    node.replace_input_with(index, add_initializer(graph, name, scaled))
