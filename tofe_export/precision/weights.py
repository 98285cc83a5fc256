"""Stores the weights of matrix products in 8 bits, for ONNX Runtime: less to read from memory at batch 1.

Rules (ONNX Runtime's ContribOperators document, MatMulNBits):
* a product with a constant matrix becomes `com.microsoft::MatMulNBits`: 8 bits, a symmetric scale for each block of 32
  inputs, and activations that are rounded to 8 bits on the way in (accuracy level 4);
* selectors keep their weights, for a rounded keep score ties with its neighbors; so do convolutions, the head (a
  Gemm) and fused attention.

ONNX Runtime's own quantizer does the work.
"""

from __future__ import annotations

import logging

import onnx_ir as ir

from tofe_export.graph.stored import whole_proto
from tofe_export.runners.onnxruntime_runner import import_onnxruntime

_BLOCK = 32
_SELECTOR = ".selector"
_PRODUCT = "MatMulNBits"


def weights_in_8_bits(model: ir.Model) -> tuple[ir.Model, int]:
    """A copy with the rules above applied, and how many products it changed.

    Raises:
        MissingError: ONNX Runtime is not installed.
    """
    import_onnxruntime()
    from onnxruntime.quantization.matmul_nbits_quantizer import (  # noqa: PLC0415 - an extra
        MatMulNBitsQuantizer,
        logger,
    )

    spared = [str(node.name) for node in model.graph if _SELECTOR in str(node.name)]
    before = logger.level
    logger.setLevel(logging.ERROR)  # it tells of every node
    try:
        quantizer = MatMulNBitsQuantizer(
            whole_proto(model), block_size=_BLOCK, is_symmetric=True, accuracy_level=4, nodes_to_exclude=spared, bits=8
        )
        quantizer.process()
    finally:
        logger.setLevel(before)
    rewritten = ir.from_proto(quantizer.model.model)
    return rewritten, sum(node.op_type == _PRODUCT for node in rewritten.graph)
