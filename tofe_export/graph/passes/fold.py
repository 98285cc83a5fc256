"""Computes what depends on weights alone (slices and transposes of them), whatever its size.

The exporter's own optimizer folds only small tensors, which would leave the selector's split weight and the
last block's query weight to be sliced anew by every runtime.
"""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.optimizer import fold_constants

_NO_LIMIT = 1 << 40


def fold_weights(model: ir.Model) -> bool:
    """Folds constants in place, then drops initializers that nothing reads."""
    result = fold_constants(model, onnx_shape_inference=False, input_size_limit=_NO_LIMIT, output_size_limit=_NO_LIMIT)
    unused = [name for name, value in model.graph.initializers.items() if not value.uses()]
    for name in unused:
        del model.graph.initializers[name]
    return bool(result.modified or unused)
