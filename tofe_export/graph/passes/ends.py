"""The ends of a file that is served as it is: it takes pixels instead of normalized images, and names classes.

With an end, what was the input (`images`) or an output (`logits`) of the network is a value inside the graph and keeps
its name. So the network can be cut out of the file again, and be judged like any other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tofe_export.data.preprocessing import Preprocessing
from tofe_export.graph.export import INPUT
from tofe_export.graph.preparing import PREPARE, prepare_function
from tofe_export.graph.stored import add_initializer
from tofe_export.model.operators import DOMAIN, VERSION
from tofe_export.runners.base import LOGITS

PIXELS, CLASSES, PROBABILITIES = "pixels", "classes", "probabilities"
"""Input of a file that prepares images itself, uint8 [B, H, W, 3] in RGB; and outputs of one that names classes: int64
and float32 [B, top], the most probable first."""


def take_pixels(model: ir.Model, preprocessing: Preprocessing) -> None:
    """Puts `PrepareImages` before the network, in place; raises as `prepare_function` does."""
    function = prepare_function(preprocessing)
    [images] = model.graph.inputs
    assert images.shape is not None
    batch = images.shape[0]
    pixels = ir.Value(
        name=PIXELS,
        type=ir.TensorType(ir.DataType.UINT8),
        shape=ir.Shape([batch, "height", "width", 3]),
    )
    node = ir.Node(DOMAIN, PREPARE, [pixels], name="prepare")
    prepared = node.outputs[0]
    prepared.type, prepared.shape = images.type, images.shape
    ir.convenience.replace_all_uses_with(images, prepared)
    images.name, prepared.name = None, INPUT
    model.graph.inputs[:] = [pixels]
    model.graph.insert_before(model.graph[0], node)
    model.functions[function.identifier()] = function
    model.opset_imports[DOMAIN] = VERSION


def name_classes(model: ir.Model, top: int) -> None:
    """Returns the `top` most probable classes and their probabilities in place of the logits; changes `model`.

    Of equal probabilities the lower class comes first, as ONNX says of TopK.
    """
    graph = model.graph
    place, logits = next((place, value) for place, value in enumerate(graph.outputs) if value.name == LOGITS)
    assert logits.shape is not None
    softmax = ir.node("Softmax", [logits], {"axis": 1}, name="answer/Softmax")
    softmax.outputs[0].name = "answer/every_probability"
    count = add_initializer(graph, "answer/top", np.array([top], np.int64))
    best = ir.node("TopK", [softmax.outputs[0], count], {"axis": 1}, num_outputs=2, name="answer/TopK")
    probabilities, classes = best.outputs
    for value, name, kind in (
        (classes, CLASSES, ir.DataType.INT64),
        (probabilities, PROBABILITIES, ir.DataType.FLOAT),
    ):
        value.name, value.type, value.shape = name, ir.TensorType(kind), ir.Shape([logits.shape[0], top])
    graph.extend([softmax, best])
    graph.outputs[place : place + 1] = [classes, probabilities]


def cut_ends(model: ir.Model) -> bool:
    """Leaves the network alone, from normalized images to logits, in place; whether there was anything to cut."""
    graph = model.graph
    values = {value.name: value for node in graph for value in node.outputs}
    names = [value.name for value in graph.outputs]
    changed = False
    if CLASSES in names and LOGITS in values:
        place = names.index(CLASSES)
        graph.outputs[place : place + 2] = [values[LOGITS]]
        changed = True
    if INPUT in values:
        prepared = values[INPUT]
        images = ir.Value(name=INPUT, type=prepared.type, shape=prepared.shape)
        ir.convenience.replace_all_uses_with(prepared, images)
        prepared.name = None
        graph.inputs[:] = [images]
        _empty_branches(graph)
        changed = True
    if changed:
        RemoveUnusedNodesPass()(model)
        for name in [name for name in model.functions if name[:2] == (DOMAIN, PREPARE)]:
            del model.functions[name]
        if not model.functions:
            model.opset_imports.pop(DOMAIN, None)
    return changed


def _empty_branches(graph: ir.Graph) -> None:
    """Else what a branch of the removed `If` reads would count as read for ever."""
    for node in graph:
        for attribute in node.attributes.values():
            if attribute.type == ir.AttributeType.GRAPH:
                for inner in attribute.as_graph():
                    for place in range(len(inner.inputs)):
                        inner.replace_input_with(place, None)
