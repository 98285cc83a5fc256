"""Named passes over an exported model, one per file. `PIPELINE` is their order after tracing.

A pass takes an `onnx_ir.Model`, changes it in place, and returns whether it changed anything.
"""

from collections.abc import Callable

import onnx_ir as ir

from tofe_export.graph.passes.fold import fold_weights
from tofe_export.graph.passes.names import name_by_module
from tofe_export.graph.passes.scales import fold_scales
from tofe_export.graph.passes.strip import strip_metadata

PIPELINE: tuple[Callable[[ir.Model], bool], ...] = (fold_weights, fold_scales, name_by_module, strip_metadata)
