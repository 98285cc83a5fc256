"""From an exported graph to the input of a TensorRT parser: the precision first, then the operators."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx_ir as ir

from tofe_export.documents.manifest import OperatorUse
from tofe_export.engine.backend import Backend
from tofe_export.engine.operators import prepare_operators
from tofe_export.engine.options import BuildOptions
from tofe_export.errors import InputError
from tofe_export.graph.stored import serialize
from tofe_export.precision.half import HALVES, to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.runners.base import LargeModel

_HEAVY = ("MatMul", "Gemm", "Conv")
_NAMES = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    **{dtype: name for name, dtype in FORMATS.items()},
}


@dataclass(frozen=True)
class Prepared:
    """Input of the parser.

    Attributes:
        content: the ONNX model.
        operators: how each of the two operators will be run.
        heavy: matrix products and convolutions by precision, which the parsed network must have too.
    """

    content: bytes | LargeModel
    operators: list[OperatorUse]
    heavy: dict[str, int]


def prepare(model: ir.Model, backend: Backend, options: BuildOptions, precision: str) -> Prepared:
    """Rewrites `model` in place.

    Args:
        model: an exported graph.
        backend: what will parse it.
        options: see there.
        precision: what `model` is in.

    Raises:
        InputError: it cannot be converted to `options.precision`, or does not say its types; see `prepare_operators`.
        MissingError: see `prepare_operators`.
    """
    if options.precision != precision:
        if precision != "fp32" or options.precision not in HALVES:
            raise InputError(
                f"The file is in {precision}; it cannot be converted to {options.precision}.",
                f"Give `precision={precision!r}`, or start from the float32 file of the checkpoint.",
                code="precision-of-file",
                precision=precision,
            )
        to_half(model, options.precision)
    uses = prepare_operators(model, backend, options.plugin)
    heavy = Counter(_precision_of(node) for node in model.graph if node.op_type in _HEAVY)
    return Prepared(serialize(model), uses, dict(heavy))


def _precision_of(node: ir.Node) -> str:
    """What a matrix product or convolution computes in: behind a DequantizeLinear that of the quantized values."""
    source = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
    quantized = source is not None and source.op_type == "DequantizeLinear"
    value = source.inputs[0] if quantized and source is not None else node.outputs[0]
    if value is None or value.dtype not in _NAMES:
        raise InputError(
            f"The file does not say which precision {node.name} computes in.",
            "Start from the file that was exported from the checkpoint.",
            code="precision-unknown",
            node=node.name,
        )
    return _NAMES[value.dtype]
