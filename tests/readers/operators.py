"""The two operators alone, written out in standard operators, and scores that tell readers apart."""

import math

import numpy as np
import onnx
import onnx_ir as ir
import torch

from tofe_export.graph.functions import operator_functions
from tofe_export.graph.passes.inline import inline_operators
from tofe_export.model.operators import DOMAIN, token_partition
from tofe_export.runners.base import Array

COUNT, KEEP, PREFIX, WIDTH = 16, 6, 1, 4
PARTITION, REARRANGE = ["kept", "frozen", "perm"], ["tokens"]
"""The outputs of each."""
_INF, _NAN = math.inf, math.nan
ROWS = {
    "all equal": [0.5] * COUNT,
    "two values": [1, 0] * 8,
    "three values": [2, 2, 2, 1, 1, 1, 3, 3, 3, 2, 2, 2, 1, 1, 1, 0],
    "zeros of both signs": [0.0, -0.0] * 8,
    "NaN alone": [_NAN] * COUNT,
    "NaN is -infinity": [_NAN, -_INF] * 8,
    "NaN is the lowest": [_NAN, -3e38, 7, 7] * 4,
    "infinity like a prefix row": [0, _INF] * 8,
    "infinities": [_INF, -_INF, _NAN, 0, -0.0, 0, _INF, _NAN, -_INF, 1, 1, -1, 3e38, -3e38, 2, -2],
    "falling": list(range(COUNT))[::-1],
    "rising": list(range(COUNT)),
}
SUBNORMAL = np.array([[1e-45, 0.0, -1e-45, -0.0] * 4], np.float32)
"""What a GPU may take for zeros."""


def scores() -> Array:
    """Every row of `ROWS` as one batch; one NaN has its sign bit set."""
    batch = np.array(list(ROWS.values()), np.float32)
    batch[list(ROWS).index("NaN alone"), 3] = np.uint32(0xFFC00001).view(np.float32)
    return batch


def tokens_for(ranked: Array) -> Array:
    """Token rows that are all different, for scores [batch, count]."""
    shape = (len(ranked), ranked.shape[1] + PREFIX, WIDTH)
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


def expected_of(ranked: Array, keep: int = KEEP) -> dict[str, Array]:
    """What PyTorch's operator gives, which `tests/model` holds against Python's own sorting."""
    parts = token_partition(torch.from_numpy(tokens_for(ranked)), torch.from_numpy(ranked), keep, PREFIX)
    return {name: part.numpy() for name, part in zip(PARTITION, parts, strict=True)}


def partition(count: int = COUNT, keep: int = KEEP) -> bytes:
    """TokenPartition as a model in standard operators."""
    ins = [_value("tokens", count + PREFIX, WIDTH), _value("scores", count)]
    outs = [_value("kept", keep + PREFIX, WIDTH), _value("frozen", count - keep, WIDTH), _perm(count)]
    return _written_out("TokenPartition", ins, outs, keep=keep, prefix=PREFIX)


def partition_of_rows() -> bytes:
    """The same with one input, `images`, as an engine has it: the scores are the first channel of the patch rows."""
    ins, outs = [_value("images", COUNT + PREFIX, WIDTH)], [
        _value("kept", KEEP + PREFIX, WIDTH), _value("frozen", COUNT - KEEP, WIDTH), _perm(COUNT),
    ]  # fmt: skip
    numbers = {"begin": [PREFIX], "end": [COUNT + PREFIX], "axis": [1], "channel": 0}
    constants = [onnx.numpy_helper.from_array(np.array(number), name) for name, number in numbers.items()]
    ranked = [
        onnx.helper.make_node("Slice", ["images", "begin", "end", "axis"], ["patches"], "cut"),
        onnx.helper.make_node("Gather", ["patches", "channel"], ["scores"], "rank", axis=2),
    ]
    operator = _node("TokenPartition", ["images", "scores"], PARTITION, keep=KEEP, prefix=PREFIX)
    return _inlined(onnx.helper.make_graph([*ranked, operator], "rows", ins, outs, constants))


def rearrange() -> bytes:
    """ScatterRearrange as a model in standard operators."""
    ins = [_value("kept", KEEP + PREFIX, WIDTH), _value("frozen", COUNT - KEEP, WIDTH), _perm(COUNT)]
    return _written_out("ScatterRearrange", ins, [_value("tokens", COUNT + PREFIX, WIDTH)], prefix=PREFIX)


def _value(name: str, *sizes: int) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", *sizes])


def _perm(count: int) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info("perm", onnx.TensorProto.INT32, ["batch", count])


def _written_out(
    operator: str, ins: list[onnx.ValueInfoProto], outs: list[onnx.ValueInfoProto], **attributes: int
) -> bytes:
    node = _node(operator, [value.name for value in ins], [value.name for value in outs], **attributes)
    return _inlined(onnx.helper.make_graph([node], operator, ins, outs))


def _node(operator: str, ins: list[str], outs: list[str], **attributes: int) -> onnx.NodeProto:
    return onnx.helper.make_node(
        operator, ins, outs, "one", domain=DOMAIN, plugin_namespace="tofe", plugin_version="1", **attributes
    )


def _inlined(graph: onnx.GraphProto) -> bytes:
    model = onnx.helper.make_model(
        graph,
        functions=[ir.serde.serialize_function(function) for function in operator_functions()],
        opset_imports=[onnx.helper.make_opsetid("", 20), onnx.helper.make_opsetid(DOMAIN, 1)],
        ir_version=10,
    )
    written_out = ir.from_proto(model)
    assert inline_operators(written_out) == 1
    proto = ir.to_proto(written_out)
    onnx.checker.check_model(proto, full_check=True)
    assert not proto.functions
    assert {entry.domain for entry in proto.opset_import} == {""}
    return bytes(proto.SerializeToString())
