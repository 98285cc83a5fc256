"""Names every node after the PyTorch module it came from, and every value after its node.

Rules:
* a node is called `<module path>/<OpType>`, with `_1`, `_2`, ... for repeats within the module;
* what it computes is called `<node>_output_<i>`;
* a parameter keeps its name in the checkpoint; a weight that the exporter transposed becomes `<module>.weight.T`;
* any other constant is called after its first reader, `<node>_input_<i>`.

Precondition: nodes carry the exporter's `pkg.torch.onnx.name_scopes`. Graph inputs, outputs and the tapped
values (`stage0.perm`, ...) keep their names, so that a later pass can find them.
"""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir

from tofe_export.graph.stored import tensor_of

_SCOPES = "pkg.torch.onnx.name_scopes"
_NO_MODULE = ("", "tofe", "_empty_nn_module_stack_from_metadata_hook")
_WRAPPER = "tofe."  # the attribute under which the traced wrapper holds the network


def name_by_module(model: ir.Model) -> bool:
    """Applies the rules above. Always changes a freshly traced model."""
    graph = model.graph
    fixed = {id(value) for value in (*graph.inputs, *graph.outputs)}
    repeats: Counter[str] = Counter()
    for node in graph:
        base = f"{_module(node)}/{node.op_type}"
        node.name = base if not repeats[base] else f"{base}_{repeats[base]}"
        repeats[base] += 1
        for index, value in enumerate(node.outputs):
            if id(value) not in fixed:
                value.name = f"{node.name}_output_{index}"
    places = {node: place for place, node in enumerate(graph)}
    for name in list(graph.initializers):
        value = graph.initializers[name]
        value.name = _initializer_name(value, places).removeprefix(_WRAPPER)
    return True


def _module(node: ir.Node) -> str:
    """The innermost module's path; a node outside any module counts to the module of its first input."""
    scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
    modules = [scope for scope in scopes[:-1] if scope not in _NO_MODULE]  # the last entry is the operation itself
    if modules:
        return str(modules[-1]).removeprefix(_WRAPPER)
    producers = (value.producer() for value in node.inputs if value is not None)
    upstream = next((producer.name for producer in producers if producer is not None), None)
    return upstream.rsplit("/", 1)[0] if upstream else "images"


def _initializer_name(value: ir.Value, places: dict[ir.Node, int]) -> str:
    if "." in (value.name or ""):
        return value.name or ""
    user, index = min(value.uses(), key=lambda use: (places[use[0]], use[1]))  # they come in the order they were made
    module, _, operator = str(user.name).rpartition("/")
    if operator == "MatMul" and len(tensor_of(value).shape) == 2:
        return f"{module}.weight.T"
    return f"{user.name}_input_{index}"
