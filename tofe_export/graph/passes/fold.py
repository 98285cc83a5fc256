"""Computes every node that depends on weights alone (slices and transposes of them), whatever its size.

The exporter's own optimizer folds only small tensors, which would leave the selector's split weight and the
last block's query weight to be sliced anew by every runtime.
"""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from onnxscript.optimizer import fold_constants

_NO_LIMIT = 1 << 40


def fold_weights(model: ir.Model) -> bool:
    """Folds constants in place, then removes initializers that no node reads."""
    result = fold_constants(model, onnx_shape_inference=False, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    return bool(RemoveUnusedNodesPass()(model).modified or result.modified)
