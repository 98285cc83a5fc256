"""Replaces each self-attention by one node, `com.microsoft::Attention`, which ONNX Runtime computes without the copies
between products (ONNX Runtime's ContribOperators document, Attention).

Rules:
* the pattern is what timm's attention exports to: one product makes queries, keys and values of all heads, which are
  reshaped, transposed and sliced apart; softmax(scale * Q K^T) V follows, and the heads are joined again;
* nothing else reads what lies between. A stage that chooses by the attention of the CLS row reads the softmax, and a
  last block that is cut to its prefix rows makes its queries apart: both stay as they are;
* weight and bias of the product go into the node; where there is no bias, zeros.

Precondition: weights are initializers (`fold_weights`). The new node is called after the attention's module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tofe_export.graph.matching import constant, only_producer, only_reader
from tofe_export.graph.stored import add_initializer

MICROSOFT = "com.microsoft"
_HEADS_FIRST = (2, 0, 3, 1, 4)  # [B, L, 3, H, D] -> [3, B, H, L, D]
_LAST_TWO = (0, 1, 3, 2)
_HEADS_BEHIND_ROWS = (0, 2, 1, 3)


@dataclass(frozen=True)
class _Attention:
    """What one attention consists of: rows [B, L, C], weight [C, 3C], bias [3C] and the joined heads [B, L, C]."""

    rows: ir.Value
    weight: ir.Value
    bias: ir.Value | None
    heads: int
    scale: float
    joined: ir.Node


def fuse_attention(model: ir.Model) -> int:
    """Applies the rules above in place; how many attentions were replaced."""
    graph = model.graph
    found = [part for node in list(graph) if node.op_type == "Softmax" and (part := _attention(node))]
    for part in found:
        module = str(part.joined.name).partition("/")[0]
        bias = part.bias or add_initializer(
            graph, f"{module}/Attention_input_2", np.zeros(_columns(part.weight), _array(part.weight).dtype)
        )
        node = ir.Node(
            MICROSOFT,
            "Attention",
            [part.rows, part.weight, bias],
            [ir.AttrInt64("num_heads", part.heads), ir.AttrFloat32("scale", part.scale)],
            name=f"{module}/Attention",
        )
        old, new = part.joined.outputs[0], node.outputs[0]
        new.name, new.type, new.shape = f"{module}/Attention_output_0", old.type, old.shape
        graph.insert_after(part.joined, node)
        ir.convenience.replace_all_uses_with(old, new)
    if found:
        model.opset_imports[MICROSOFT] = 1
        RemoveUnusedNodesPass()(model)
    return len(found)


def _attention(softmax: ir.Node) -> _Attention | None:
    """The attention around a softmax, if it follows the rules."""
    scores = only_producer(softmax.inputs[0], "MatMul")
    mixed = only_reader(softmax.outputs[0], "MatMul")
    if scores is None or mixed is None or mixed.inputs[0] is not softmax.outputs[0]:
        return None
    behind = only_reader(mixed.outputs[0], "Transpose")
    joined = (
        None if behind is None or _perm(behind) != _HEADS_BEHIND_ROWS else only_reader(behind.outputs[0], "Reshape")
    )
    keys = only_producer(scores.inputs[1], "Transpose")
    if joined is None or keys is None or _perm(keys) != _LAST_TWO:
        return None
    query, scale = _scaled(scores.inputs[0])
    sources = [_slice_of(value, place) for place, value in enumerate((query, keys.inputs[0], mixed.inputs[1]))]
    apart = sources[0]
    if apart is None or any(source is not apart for source in sources) or len(apart.outputs[0].uses()) != len(sources):
        return None
    product = _product_of(apart)
    if product is None:
        return None
    rows, weight, bias, heads = product
    return _Attention(rows, weight, bias, heads, scale, joined)


def _scaled(query: ir.Value | None) -> tuple[ir.Value | None, float]:
    """Queries before they are multiplied by a constant of one element, and that constant."""
    node = only_producer(query, "Mul")
    factor = None if node is None else constant(node.inputs[1])
    if node is None or factor is None or factor.size != 1:
        return query, 1.0
    return node.inputs[0], float(factor.item())


def _slice_of(value: ir.Value | None, place: int) -> ir.Node | None:
    """The transposition that `value` is the `place`-th part of."""
    squeeze = only_producer(value, "Squeeze")
    cut = None if squeeze is None else only_producer(squeeze.inputs[0], "Slice")
    if cut is None or [_ints(item) for item in cut.inputs[1:4]] != [(place,), (place + 1,), (0,)]:
        return None
    source = cut.inputs[0]
    producer = None if source is None else source.producer()
    if producer is None or producer.op_type != "Transpose" or _perm(producer) != _HEADS_FIRST:
        return None
    return producer


def _product_of(apart: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value | None, int] | None:
    """Rows, weight, bias and number of heads of the product that makes queries, keys and values."""
    reshape = only_producer(apart.inputs[0], "Reshape")
    shape = () if reshape is None else _ints(reshape.inputs[1])
    if reshape is None or len(shape) != 5 or shape[2] != 3:
        return None
    packed, bias = reshape.inputs[0], None
    add = only_producer(packed, "Add")
    if add is not None:
        packed, bias = add.inputs[0], add.inputs[1]
    product = only_producer(packed, "MatMul")
    if product is None:
        return None
    rows, weight = product.inputs[0], product.inputs[1]
    if rows is None or weight is None or constant(weight) is None or (bias is not None and constant(bias) is None):
        return None
    return rows, weight, bias, shape[3]


def _perm(node: ir.Node) -> tuple[int, ...]:
    return tuple(node.attributes.get_ints("perm", ()))


def _ints(value: ir.Value | None) -> Sequence[int]:
    array = constant(value)
    return () if array is None else tuple(int(item) for item in array.reshape(-1))


def _array(weight: ir.Value) -> np.ndarray:
    array = constant(weight)
    assert array is not None
    return array


def _columns(weight: ir.Value) -> int:
    return int(_array(weight).shape[1])
