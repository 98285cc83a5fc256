"""The best that a runtime does on this machine: single matrix products, beside which a model's MACs per second are set.

Three shapes, of which the fastest counts, since none is the best everywhere: a square one, the tall one of an MLP's
first layer over a batch of images, and the many small ones of an attention.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tofe_export.graph.functions import OPSET
from tofe_export.runners.onnxruntime_runner import CPU, CUDA
from tofe_export.timing.subjects import AnySubject, OnnxFile, OnnxProduct, OpenVinoFile, TorchProduct

_SHAPES = (((1024, 1024), (1024, 1024)), ((8 * 197, 384), (384, 1536)), ((48, 197, 64), (48, 64, 197)))
_TYPES = {
    (CPU, "fp32"): ("MatMul", "float32", "float32"),
    (CPU, "int8"): ("MatMulInteger", "uint8", "int8"),  # the form with the fastest kernels on x86
    (CUDA, "fp32"): ("MatMul", "float32", "float32"),
    (CUDA, "fp16"): ("MatMul", "float16", "float16"),
}
"""Where ONNX Runtime computes, and in which precision -> the operator, and types of both sides.

The others have no product of their own: on a CPU, ONNX Runtime computes FP16 and FP8 in float32.
"""


def onnx_products(folder: Path, threads: int, precision: str, provider: str) -> list[AnySubject]:
    """Products in ONNX Runtime, written to `folder`; none where it has no product in that precision."""
    if (provider, precision) not in _TYPES:
        return []

    def opened(path: Path) -> OnnxFile:
        return OnnxFile(path=path, threads=threads, precision=precision, provider=provider)

    return _products(folder, *_TYPES[provider, precision], opened)


def openvino_products(folder: Path, threads: int, precision: str) -> list[AnySubject]:
    """Products in OpenVINO, written to `folder`; none in 8 bits, which it makes of quantized graphs only."""
    if precision not in ("fp32", "bf16"):
        return []

    arithmetic: Literal["fp32", "bf16"] = "bf16" if precision == "bf16" else "fp32"

    def opened(path: Path) -> OpenVinoFile:
        return OpenVinoFile(path=path, threads=threads, precision=precision, arithmetic=arithmetic)

    return _products(folder, *_TYPES[CPU, "fp32"], opened)


def _products(
    folder: Path, operator: str, left_type: str, right_type: str, opened: Callable[[Path], OnnxFile | OpenVinoFile]
) -> list[AnySubject]:
    products: list[AnySubject] = []
    for left, right in _SHAPES:
        path = folder / f"product.{len(list(folder.iterdir()))}.onnx"
        path.write_bytes(product_model(operator, left, np.ones(right, right_type), left_type).SerializeToString())
        macs = math.prod(left) * right[-1]
        products.append(OnnxProduct(file=opened(path), shape=left, dtype=left_type, macs=macs))
    return products


def torch_products(threads: int) -> list[AnySubject]:
    """Products in PyTorch: the shapes that `torch.mm` takes."""
    two = [(left, right) for left, right in _SHAPES if len(left) == 2]
    return [TorchProduct(rows=left[0], inner=left[1], columns=right[1], threads=threads) for left, right in two]


def product_model(operator: str, left: Sequence[int | str], right: np.ndarray, dtype: str) -> onnx.ModelProto:
    """A graph of one product; its right side is a constant, as weights are, so that the runtime may pack it.

    A size of the left side that is a name may be any.
    """
    given = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    returned = TensorProto.INT32 if operator == "MatMulInteger" else given
    graph = helper.make_graph(
        [helper.make_node(operator, ["left", "right"], ["product"])],
        "product",
        [helper.make_tensor_value_info("left", given, list(left))],
        [helper.make_tensor_value_info("product", returned, None)],
        [numpy_helper.from_array(right, "right")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
