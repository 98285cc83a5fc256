"""The bodies of the two operators in standard ONNX operators (opset 20), carried in every exported file.

ONNX Runtime runs these; TensorRT uses the plugin when it is registered and otherwise expands them. Rows move
by GatherND with one index per row: element-wise gathers and scatters of the same rows are 5 to 20 times slower
in ONNX Runtime (benchmarks/results). TopK breaks ties by the lower index (ONNX operator document, TopK). NaN, alone, is
not equal to itself: not every runtime knows IsNaN.
"""

from __future__ import annotations

import onnx
import onnx.parser
import onnx_ir as ir

from tofe_export.model.operators import DOMAIN, PARTITION, REARRANGE, VERSION

OPSET = 20

_PARTITION = """
<opset_import: ["": 20], domain: "tofe">
TokenPartition <keep, prefix, plugin_namespace, plugin_version> (tokens, scores) => (kept, frozen, perm)
{
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    keep_count = Constant <value_int: int = @keep> ()
    prefix_count = Constant <value_int: int = @prefix> ()
    prefix_end = Reshape (prefix_count, one)
    kept_count = Add (keep_count, prefix_count)
    kept_end = Reshape (kept_count, one)
    before = Concat <axis = 0> (zero, prefix_end, zero, zero)

    lowest = Constant <value_float = -inf> ()
    highest = Constant <value_float = inf> ()
    is_number = Equal (scores, scores)
    comparable = Where (is_number, scores, lowest)
    scores_of_rows = Pad <mode = "constant"> (comparable, before, highest)
    row_count = Shape <start = 1, end = 2> (scores_of_rows)
    sorted_scores, ranked = TopK <axis = 1, largest = 1, sorted = 1> (scores_of_rows, row_count)

    patches = Slice (ranked, prefix_end, row_count, one)
    patches_from_zero = Sub (patches, prefix_end)
    perm = Cast <to = 6> (patches_from_zero)

    index = Unsqueeze (ranked, two)
    kept_index = Slice (index, zero, kept_end, one)
    frozen_index = Slice (index, kept_end, row_count, one)
    kept = GatherND <batch_dims = 1> (tokens, kept_index)
    frozen = GatherND <batch_dims = 1> (tokens, frozen_index)
}
"""

_REARRANGE = """
<opset_import: ["": 20], domain: "tofe">
ScatterRearrange <prefix, plugin_namespace, plugin_version> (kept, frozen, perm) => (tokens)
{
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    zero_scalar = Constant <value_int = 0> ()
    one_scalar = Constant <value_int = 1> ()
    prefix_count = Constant <value_int: int = @prefix> ()
    prefix_end = Reshape (prefix_count, one)

    ranked = Concat <axis = 1> (kept, frozen)
    row_count = Shape <start = 1, end = 2> (ranked)
    row_end = Squeeze (row_count)
    rows = Range (zero_scalar, row_end, one_scalar)
    batch = Shape <start = 0, end = 1> (perm)
    batch_shape = Concat <axis = 0> (batch, one)
    rows_of_batch = Expand (rows, batch_shape)
    ranks = Slice (rows_of_batch, prefix_end, row_count, one)
    perm_long = Cast <to = 7> (perm)
    places = Add (perm_long, prefix_end)
    row_of_place = ScatterElements <axis = 1> (rows_of_batch, places, ranks)
    index = Unsqueeze (row_of_place, two)
    tokens = GatherND <batch_dims = 1> (ranked, index)
}
"""


def operator_functions() -> list[ir.Function]:
    """The bodies of both operators, as they are attached to an exported model."""
    return [ir.serde.deserialize_function(onnx.parser.parse_function(text)) for text in (_PARTITION, _REARRANGE)]


def attach_functions(model: ir.Model) -> None:
    """Adds to `model`, in place, the body of each of the two operators that its graph uses."""
    used = {(node.domain, node.op_type) for node in model.graph.all_nodes()}
    for function in operator_functions():
        if (function.domain, function.name) in used:
            model.functions[function.identifier()] = function
    if model.functions:
        model.opset_imports[DOMAIN] = VERSION


def is_operator(node: ir.Node) -> bool:
    """Whether `node` is one of the two operators."""
    return node.domain == DOMAIN and node.op_type in (PARTITION, REARRANGE)
