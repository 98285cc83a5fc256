"""Rewrites an exported float32 graph to FP16 or BF16, with casts in the graph (all that TensorRT 11 knows).

What stays float32, and why:
* the network's inputs and outputs, so that callers change nothing;
* keep scores and the linear end of each selector that makes them: rounded to 16 bits, scores would tie, and a token
  chosen otherwise changes everything after it;
* softmax (with the bias added to its input) and LayerNormalization, which sum many terms: their statistics overflow or
  drown in 16 bits;
* under BF16 the patch convolution: the Conv of opset 20 knows no bfloat16; likewise whatever else ONNX does not define
  in 16 bits, such as Range;
* what makes floats of something else: a Cast, a constant. Readers in 16 bits get a copy, and those in float32 the value
  itself: of integers above 2048 FP16 holds some only.
Weights are stored in the precision of the node that reads them.
"""

from __future__ import annotations

from collections import Counter
from itertools import chain, repeat

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tofe_export.errors import InputError
from tofe_export.graph.functions import is_operator
from tofe_export.graph.stored import add_initializer, tensor_of
from tofe_export.model.operators import PARTITION

FROM_FLOAT32 = "Start from the float32 file that was exported from the checkpoint."
HALVES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}
_FLOAT = ir.DataType.FLOAT
PRECISION_NAMES = {dtype: name for name, dtype in HALVES.items()} | {_FLOAT: "fp32"}
_LARGEST = {ir.DataType.FLOAT16: 65504.0, ir.DataType.BFLOAT16: 3.3895e38}
_FULL = ("Softmax", "LayerNormalization", "ReduceMean", "ReduceSum", "Exp", "Log", "Pow", "Sqrt")
_ACTIVATIONS = ("Gelu", "Relu", "Sigmoid", "Tanh", "Softmax", "LayerNormalization")
_SCORES_INPUT = 1  # of TokenPartition


class WeightTooLargeError(InputError):
    """A weight is beyond what the precision can hold."""


def to_half(model: ir.Model, precision: str) -> dict[str, int]:
    """Rewrites an exported float32 model in place; function bodies work in any type and stay as they are.

    Returns:
        How many nodes compute in which precision, e.g. {"fp16": 310, "fp32": 92}.

    Raises:
        WeightTooLargeError: a weight is too large for FP16.
        InputError: the graph is not in float32.
    """
    half = HALVES[precision]
    graph = model.graph
    if any(value.dtype in HALVES.values() for node in graph for value in node.outputs):
        raise InputError("The graph is no longer in float32.", FROM_FLOAT32, code="not-float32")
    opset = model.opset_imports[""]
    scoring = score_heads(graph)
    full = {
        id(node)
        for node in graph
        if node.op_type in _FULL
        or id(node) in scoring
        or _biases_softmax(node)
        or _makes_floats(node)
        or not _defined(node, opset, half)
    }
    casts = _Casts(graph, half)
    counts: Counter[str] = Counter()
    for node in list(graph):
        if node.op_type == "Cast":
            continue  # it reads any type and its own attribute says what it gives
        produced = [value for value in node.outputs if value.dtype == _FLOAT]
        wanted = _FLOAT if id(node) in full else half
        for index, value in enumerate(node.inputs):
            if value is not None and value.dtype in (_FLOAT, half):
                node.replace_input_with(index, casts.get(value, _FLOAT if _is_scores(node, index) else wanted))
        for value in produced:
            value.dtype = wanted
        if produced:
            counts[PRECISION_NAMES[wanted]] += 1
    for index, value in enumerate(graph.outputs):
        if value.dtype == half:
            name, value.name = str(value.name), f"{value.name}.{precision}"
            graph.outputs[index] = casts.insert(value, _FLOAT, name)
    RemoveUnusedNodesPass()(model)
    return dict(counts)


def score_heads(graph: ir.Graph) -> set[int]:
    """Ids of the nodes between a selector's last activation and its keep scores, whatever they are called."""
    found: set[int] = set()
    outputs = {id(value) for value in graph.outputs if not (value.name or "").endswith(".scores")}
    for node in reversed(graph):
        uses = [use for value in node.outputs for use in value.uses()]
        if is_operator(node) or node.op_type in _ACTIVATIONS or any(id(value) in outputs for value in node.outputs):
            continue
        if uses and all(id(user) in found or _is_scores(user, index) for user, index in uses):
            found.add(id(node))
    return found


def _makes_floats(node: ir.Node) -> bool:
    """Whether its outputs have a type of their own, and not that of an input."""
    return node.op_type == "Cast" or not any(value is not None and value.dtype == _FLOAT for value in node.inputs)


def _defined(node: ir.Node, opset: int, half: ir.DataType) -> bool:
    """Whether ONNX defines the operator for values of type `half` wherever this node has a float."""
    if node.domain not in ("", "ai.onnx"):
        return True  # the two operators and their like move rows of any type
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {found.type_param_str: found.allowed_type_strs for found in schema.type_constraints}
    name = f"tensor({half.name.lower()})"
    return all(
        name in allowed.get(formal.type_str, [formal.type_str])
        for known, values in ((schema.inputs, node.inputs), (schema.outputs, node.outputs))
        # The last formal input or output may stand for many.
        for formal, value in zip(chain(known, repeat(known[-1])) if known else (), values, strict=False)
        if value is not None and value.dtype == _FLOAT
    )


def _biases_softmax(node: ir.Node) -> bool:
    """An attention bias may be as low as float32 goes."""
    users = [user for value in node.outputs for user, _ in value.uses()]
    return node.op_type == "Add" and bool(users) and all(user.op_type == "Softmax" for user in users)


def _is_scores(user: ir.Node, index: int) -> bool:
    return is_operator(user) and user.op_type == PARTITION and index == _SCORES_INPUT


class _Casts:
    """A value in another type, made once: a cast right behind its producer, or a converted weight."""

    def __init__(self, graph: ir.Graph, half: ir.DataType) -> None:
        self._graph, self._half = graph, half
        self._made: dict[tuple[int, ir.DataType], ir.Value] = {}

    def get(self, value: ir.Value, dtype: ir.DataType) -> ir.Value:
        if value.dtype == dtype:
            return value
        key = (id(value), dtype)
        if key not in self._made:
            name = f"{value.name}.{PRECISION_NAMES[dtype]}"
            make = self._weight if value.is_initializer() else self.insert
            self._made[key] = make(value, dtype, name)
        return self._made[key]

    def insert(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        """The output, called `name`, of a new Cast of `value` to `dtype`."""
        made = ir.Value(name=name, shape=value.shape, type=ir.TensorType(dtype))
        node = ir.node("Cast", [value], {"to": int(dtype)}, outputs=[made], name=f"{name}/Cast")
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], node)
        else:
            self._graph.insert_after(producer, node)
        return made

    def _weight(self, value: ir.Value, dtype: ir.DataType, name: str) -> ir.Value:
        array = tensor_of(value).numpy()
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        if largest > _LARGEST[self._half]:
            raise WeightTooLargeError(
                f"The weight {value.name} has values up to {largest:.3g}, too large for FP16.",
                "Use `precision='bf16'`, or in a recipe around = \"fp32\".",
                code="weight-too-large",
                weight=value.name,
            )
        return add_initializer(self._graph, name, array.astype(dtype.numpy()))


def is_float32(model: ir.Model) -> bool:
    """Whether whatever is not quantized is in float32."""
    return not any(value.dtype == ir.DataType.FLOAT16 for node in model.graph for value in node.outputs)
