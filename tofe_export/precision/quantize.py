"""INT8 and FP8 (E4M3) with explicit QuantizeLinear and DequantizeLinear nodes, all that TensorRT 11 knows.

ONNX Runtime's `QDQQuantizer` inserts the nodes; the policy is here:
* both inputs of a chosen layer, never its output: additions, LayerNorm, GELU and softmax stay in high precision, and
  neither a layer's bias nor the rows that the two operators move are quantized;
* weights per output channel, values per tensor, zero point 0;
* INT8 weights in 7 bits unless the recipe or an engine requires 8, since ONNX Runtime saturates on x86 without VNNI;
* scales are numbers that FP16 can hold, so that the same integers serve FP16 and FP32 around them.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tofe_export.documents.manifest import LayerCounts
from tofe_export.documents.recipe import KINDS, QuantizePolicy, RangePolicy
from tofe_export.errors import InputError
from tofe_export.graph.stored import add_initializer, tensor_of, whole_proto
from tofe_export.precision.half import FROM_FLOAT32
from tofe_export.precision.histogram import Histogram
from tofe_export.precision.kinds import PRODUCTS, quantizable
from tofe_export.runners.onnxruntime_runner import import_onnxruntime

FORMATS = {"int8": ir.DataType.INT8, "fp8": ir.DataType.FLOAT8E4M3FN}
_LARGEST = {"int8": 127.0, "fp8": 448.0}
# x86 without VNNI adds two products of a value (up to 255 there) and a weight in 16 bits, and saturates silently:
# 2 * 255 * 127 does not fit, 2 * 255 * 64 does.
_LARGEST_REDUCED = 64.0
_ORT_TYPES = {"int8": "QInt8", "fp8": "QFLOAT8E4M3FN"}
_LEAST_SCALE = 2.0**-14  # the least normal number of FP16
_GREATEST_SCALE = 65504.0  # and its greatest
_Q, _DQ = "QuantizeLinear", "DequantizeLinear"
Overrides = dict[str, list[dict[str, Any]]]
"""Value -> what ONNX Runtime's quantizer must take for it: one entry, or one for each channel."""


@dataclass(frozen=True)
class QuantizedGraph:
    """A quantized graph.

    Attributes:
        model: the rewritten copy.
        layers: how many layers of each kind are in 8 bits, and how many are not, though they could be.
        coarse: layer -> how many of its scales (one of its input, one for each channel of its weight) are the least
            there is, wider than its values require: those values are rounded more coarsely than 8 bits would.
    """

    model: ir.Model
    layers: LayerCounts
    coarse: dict[str, int]


def is_quantized(model: ir.Model) -> bool:
    """Whether the graph has Q/DQ nodes already."""
    return any(node.op_type in (_Q, _DQ) for node in model.graph)


def ranges_of(histograms: Mapping[str, Histogram], policy: RangePolicy) -> dict[str, float]:
    """Value name -> the magnitude that the largest 8-bit value stands for, by the recipe's method."""
    return {name: histogram.range(policy.method, policy.percentile) for name, histogram in histograms.items()}


def quantize_graph(
    model: ir.Model, ranges: Mapping[str, float], policy: QuantizePolicy, precision: str
) -> QuantizedGraph:
    """A copy of `model` with Q/DQ pairs around the layers that `policy` chooses.

    Args:
        model: an exported float32 model, with its function bodies; it is not changed.
        ranges: from `ranges_of`, for every value that a chosen layer reads.
        policy: what to quantize.
        precision: "int8" or "fp8".

    Raises:
        InputError: the model is quantized already or holds no such layer; or a range is zero, not finite or beyond what
            a scale in FP16 can hold (named).
        MissingError: ONNX Runtime is not installed.
    """
    if is_quantized(model):
        raise InputError("The model is quantized already.", FROM_FLOAT32, code="already-quantized")
    kinds = quantizable(model.graph)
    chosen = {name for name, kind in kinds.items() if kind in policy.kinds}
    if not chosen:
        raise InputError(
            f"The model has no layer of the kinds that the recipe quantizes ({', '.join(policy.kinds)}).",
            f"It has: {', '.join(sorted(set(kinds.values())))}.",
            code="nothing-to-quantize",
        )
    weights_up_to = _LARGEST_REDUCED if precision == "int8" and policy.reduce_range else _LARGEST[precision]
    nodes = [node for node in model.graph if node.name in chosen]
    overrides, coarse = _overrides(nodes, ranges, policy.per_channel, precision, weights_up_to)
    quantized = ir.from_proto(_insert(whole_proto(model), chosen, overrides, ranges, precision))
    quantized.producer_name, quantized.producer_version = model.producer_name, model.producer_version
    quantized.metadata_props.clear()
    _type_new_values(quantized.graph)
    _feed_others_unquantized(quantized.graph, chosen)
    _fold_weights(quantized.graph, precision, weights_up_to)
    RemoveUnusedNodesPass()(quantized)
    quantized.graph.sort()
    counts = Counter(kinds.values())
    return QuantizedGraph(
        quantized,
        LayerCounts(
            quantized={kind: counts[kind] for kind in KINDS if counts[kind] and kind in policy.kinds},
            high_precision={kind: counts[kind] for kind in KINDS if counts[kind] and kind not in policy.kinds},
        ),
        coarse,
    )


def _overrides(
    nodes: Iterable[ir.Node], ranges: Mapping[str, float], per_channel: bool, precision: str, weights_up_to: float
) -> tuple[Overrides, dict[str, int]]:
    """The scales of every value that the chosen layers read, and `QuantizedGraph.coarse`."""
    overrides: Overrides = {}
    coarse: Counter[str] = Counter()
    for node in nodes:
        for value in node.inputs[:2]:
            assert value is not None
            if value.is_initializer():
                axis, tops = _weight_tops(value, node, per_channel)
                largest = weights_up_to
            else:
                axis, tops, largest = None, _activation_top(value, node, ranges), _LARGEST[precision]
            if not (tops <= _GREATEST_SCALE * largest).all():
                raise InputError(
                    f"{value.name} has values up to {tops.max():.3g}, for which there is no {precision.upper()} scale.",
                    "Keep that kind of layer in quantize.high_precision; for NaN look at the checkpoint's weights.",
                    code="range-too-large",
                    value=value.name,
                )
            if floored := int(((tops > 0) & (tops < _LEAST_SCALE * largest)).sum()):
                coarse[str(node.name)] += floored
            at_axis = {} if axis is None else {"axis": axis}
            zero = np.zeros((), FORMATS[precision].numpy())
            steps = np.atleast_1d(scales(tops, largest))
            overrides[str(value.name)] = [{**at_axis, "scale": np.asarray(s), "zero_point": zero} for s in steps]
    return overrides, dict(coarse)


def _activation_top(value: ir.Value, node: ir.Node, ranges: Mapping[str, float]) -> NDArray[Any]:
    top = ranges.get(str(value.name), 0.0)
    if top == 0:
        raise InputError(
            f"The value {value.name}, read by {node.name}, is zero on every calibration image, so it has no range.",
            "Take other or more images, or keep that kind of layer in quantize.high_precision.",
            code="range-zero",
            value=value.name,
        )
    return np.array(top)


def _weight_tops(value: ir.Value, node: ir.Node, per_channel: bool) -> tuple[int | None, NDArray[Any]]:
    """The axis of the output channels of `node` and the greatest magnitude in each; or None and the greatest of all."""
    magnitudes = np.abs(tensor_of(value).numpy())
    if magnitudes.ndim < 2 or not per_channel:
        return None, magnitudes.max()
    transposed = node.op_type == "Gemm" and node.attributes.get_int("transB", 0) == 1
    axis = 0 if transposed or node.op_type == "Conv" else 1
    return axis, magnitudes.max(tuple(index for index in range(magnitudes.ndim) if index != axis))


def scales(top: NDArray[Any], largest: float) -> NDArray[np.float32]:
    """Scales by which `top` becomes at most `largest`, rounded up to numbers that FP16 holds."""
    exact = np.maximum(np.asarray(top, np.float64) / largest, _LEAST_SCALE)
    half = exact.astype(np.float16)
    return np.where(half < exact, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)


def _insert(
    proto: onnx.ModelProto, chosen: set[str], overrides: Overrides, ranges: Mapping[str, float], precision: str
) -> onnx.ModelProto:
    """Q/DQ pairs by ONNX Runtime, weights as Q/DQ pairs too."""
    import_onnxruntime()
    from onnxruntime.quantization import QuantType  # noqa: PLC0415 - an extra
    from onnxruntime.quantization.calibrate import TensorData  # noqa: PLC0415
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer  # noqa: PLC0415
    from onnxruntime.quantization.quant_utils import add_infer_metadata  # noqa: PLC0415

    add_infer_metadata(proto)  # the exporter wrote every type and shape
    kind = getattr(QuantType, _ORT_TYPES[precision])
    bounds = {
        name: TensorData(lowest=np.float32(-ranges[name]), highest=np.float32(ranges[name]))
        for name in overrides
        if name in ranges
    }
    options = {
        "TensorQuantOverrides": overrides,
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "QDQDisableWeightAdjustForInt32Bias": True,
        "AddQDQPairToWeight": True,
        "DedicatedQDQPair": True,
        "OpTypesToExcludeOutputQuantization": list(PRODUCTS),
    }
    quantizer = QDQQuantizer(proto, True, False, kind, kind, bounds, sorted(chosen), [], list(PRODUCTS), options)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it warns through the root logger about what is intended here
    try:
        result: onnx.ModelProto = quantizer.quantize_model()
    finally:
        root.setLevel(level)
    return result


def _type_new_values(graph: ir.Graph) -> None:
    """Q gives the type of its zero point, DQ that of its scale, both the shape of what they read."""
    graph.sort()
    for node in graph:
        if node.op_type not in (_Q, _DQ):
            continue
        source, typed = node.inputs[0], node.inputs[2 if node.op_type == _Q else 1]
        assert source is not None
        assert typed is not None
        assert typed.dtype is not None
        node.outputs[0].type, node.outputs[0].shape = ir.TensorType(typed.dtype), source.shape


def _feed_others_unquantized(graph: ir.Graph, chosen: set[str]) -> None:
    """A value that a chosen layer shares with others, or that is an output, reaches those as it was."""
    for node in list(graph):
        if node.op_type == _DQ:
            for user, index in list(node.outputs[0].uses()):
                if user.name not in chosen or index > 1:
                    user.replace_input_with(index, _before_rounding(node))
    for index, value in enumerate(graph.outputs):
        producer = value.producer()
        if producer is not None and producer.op_type == _DQ:
            original = _before_rounding(producer)
            original.name, value.name = value.name, original.name
            graph.outputs[index] = original


def _before_rounding(dequantizer: ir.Node) -> ir.Value:
    assert dequantizer.inputs[0] is not None
    quantizer = dequantizer.inputs[0].producer()
    assert quantizer is not None
    assert quantizer.inputs[0] is not None
    return quantizer.inputs[0]


def _fold_weights(graph: ir.Graph, precision: str, largest: float) -> None:
    """Stores the integers, up to `largest`, instead of the weight and its QuantizeLinear."""
    for node in [node for node in graph if node.op_type == _Q]:
        weight, scale, _ = node.inputs
        if weight is None or not weight.is_initializer():
            continue
        values, steps = tensor_of(weight).numpy(), tensor_of(scale).numpy()
        if steps.ndim:
            axis = node.attributes.get_int("axis", 1)
            steps = steps.reshape([-1 if index == axis else 1 for index in range(values.ndim)])
        levels = np.clip(values / steps, -largest, largest)
        integers = (np.rint(levels) if precision == "int8" else levels).astype(FORMATS[precision].numpy())
        stored = add_initializer(graph, f"{weight.name}.{precision}", integers)
        for user, index in list(node.outputs[0].uses()):
            user.replace_input_with(index, stored)
        graph.remove(node, safe=True)
