"""Finds in an exported graph what each PyTorch module computed, by the names that `passes/names.py` gave the nodes."""

from __future__ import annotations

from collections import defaultdict

import onnx_ir as ir

_SAME_VALUE = ("Cast", "QuantizeLinear", "DequantizeLinear")
"""What a change of precision puts between two nodes: the value behind it is still the same."""
_ROW_PICKS = ("Slice", "Gather", "GatherND")


def module_of(node: ir.Node) -> str:
    """`vit.blocks.3.attn.qkv/MatMul` -> `vit.blocks.3.attn.qkv`."""
    return (node.name or "").split("/", 1)[0]


def modules_with_nodes(model: ir.Model) -> set[str]:
    """Every module that has a node in the graph, and every module around one."""
    return {module for node in model.graph for module in _and_around(module_of(node))}


def module_values(model: ir.Model) -> dict[str, ir.Value]:
    """Module -> the value that leaves it, in the order the graph computes them.

    A value leaves a module when a node outside it reads it, or when it is an output of the graph. Modules that more
    than one value leaves (an attention that was cut in two, say) are left out.
    """
    leaving: dict[str, dict[int, ir.Value]] = defaultdict(dict)
    outputs = {id(_origin(value)) for value in model.graph.outputs}
    order: dict[int, int] = {}
    readers: dict[int, set[str]] = defaultdict(set)
    norms = {module_of(node) for node in model.graph if node.op_type == "LayerNormalization"}

    def owner(node: ir.Node) -> str:
        # What picks rows behind the last norm is in no module, and bears the norm's name (`passes/names.py`).
        return "" if node.op_type in _ROW_PICKS and module_of(node) in norms else module_of(node)

    for place, node in enumerate(model.graph):
        for value in node.outputs:
            order[id(value)] = place
        if node.op_type not in _SAME_VALUE:
            for source in (_origin(value) for value in node.inputs if value is not None):
                readers[id(source)].add(owner(node))
    for node in model.graph:
        if node.op_type in _SAME_VALUE or not owner(node):
            continue
        for value in node.outputs:
            for module in _and_around(owner(node)):
                outside = any(reader != module and not reader.startswith(module + ".") for reader in readers[id(value)])
                if outside or id(value) in outputs:
                    leaving[module][id(value)] = value
    single = {module: next(iter(values.values())) for module, values in leaving.items() if len(values) == 1}
    return dict(sorted(single.items(), key=lambda item: (order[id(item[1])], -item[0].count("."))))


def _and_around(module: str) -> list[str]:
    """`a.b.c` -> `a.b.c`, `a.b`, `a`."""
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(len(parts), 0, -1)]


def _origin(value: ir.Value) -> ir.Value:
    """The value before any change of precision."""
    producer = value.producer()
    while producer is not None and producer.op_type in _SAME_VALUE and producer.inputs[0] is not None:
        value = producer.inputs[0]
        producer = value.producer()
    return value
