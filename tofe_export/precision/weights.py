"""Stores the weights of matrix products in 8 bits, for ONNX Runtime: less to read from memory at batch 1.

Rules (ONNX Runtime's ContribOperators document, MatMulNBits):
* a product with a constant matrix becomes `com.microsoft::MatMulNBits`: 8 bits, a symmetric scale for each block of 32
  inputs, and activations that are rounded to 8 bits on the way in (accuracy level 4);
* selectors keep their weights, for a rounded keep score ties with its neighbors; so do convolutions, the head (a
  Gemm) and fused attention.

ONNX Runtime's own quantizer does the work.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import onnx_ir as ir

from tofe_export.graph.stored import whole_proto
from tofe_export.runners.onnxruntime_runner import import_onnxruntime

_BLOCK = 32
_SELECTOR = ".selector"
_PRODUCT = "MatMulNBits"
WEIGHTS_PASS = "weights"
"""Its name in a manifest."""


def weights_in_8_bits(model: ir.Model) -> tuple[ir.Model, int]:
    """A copy with the rules above applied, and how many products it changed.

    Raises:
        MissingError: ONNX Runtime is not installed.
    """
    import_onnxruntime()
    spared = [str(node.name) for node in model.graph if _SELECTOR in str(node.name)]
    with _quiet():
        from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer  # noqa: PLC0415 - an extra

        quantizer = MatMulNBitsQuantizer(
            whole_proto(model), block_size=_BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=spared, bits=8
        )
        quantizer.process()
    rewritten = ir.from_proto(quantizer.model.model)
    return rewritten, sum(node.op_type == _PRODUCT for node in rewritten.graph)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer tells of every node, and its import makes every library of the process do so."""
    root, own = logging.getLogger(), logging.getLogger("onnxruntime.quantization.matmul_nbits_quantizer")
    handlers, level, own_level = list(root.handlers), root.level, own.level
    root.addHandler(silent := logging.NullHandler())  # where there is a handler, the import adds none
    own.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.removeHandler(silent)
        root.handlers[:] = handlers
        root.setLevel(level)
        own.setLevel(own_level)
