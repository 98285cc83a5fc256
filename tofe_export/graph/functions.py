"""The bodies of the two operators in standard ONNX operators (opset 20), carried in every exported file.

ONNX Runtime runs these; TensorRT uses the plugin when it is registered and otherwise expands them. Rows move
by GatherND with one index per row: element-wise gathers and scatters of the same rows are 5 to 20 times slower
in ONNX Runtime (benchmarks/results). A comparison with NaN is false: not every runtime knows IsNaN. It must be Less:
OpenVINO's Greater is true for NaN on processors with AVX-512.

ONNX says that TopK breaks ties by the lower index; OpenVINO's does not. So a second TopK sorts integers, made of how
many different scores are higher and of the index: no two are equal, and every runtime orders them alike. Infinities are
tensors and integers are int32 because onnxslim makes a double of a function's float attribute, and tract counts with
symbols where int64 comes from a shape.

NaN and -infinity become the lowest finite number. ONNX Runtime's TopK on CUDA fills a row with it up to a power of two,
and then returns this filling, which has indices behind the row's end, where it should return -infinity.
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
    minus_one = Constant <value_ints = [-1]> ()
    row_axis = Constant <value_int = 1> ()
    zero_int = Cast <to = 6> (zero)
    keep_count = Constant <value_int: int = @keep> ()
    prefix_count = Constant <value_int: int = @prefix> ()
    prefix_end = Reshape (prefix_count, one)
    kept_count = Add (keep_count, prefix_count)
    kept_end = Reshape (kept_count, one)
    before = Concat <axis = 0> (zero, prefix_end, zero, zero)
    one_before = Constant <value_ints = [0, 1, 0, 0]> ()

    lowest = Constant <value = float {-3.4028234663852886e+38}> ()
    highest = Constant <value = float {inf}> ()
    is_higher = Less (lowest, scores)
    comparable = Where (is_higher, scores, lowest)
    scores_of_rows = Pad <mode = "constant"> (comparable, before, highest)
    row_count = Shape <start = 1, end = 2> (scores_of_rows)
    sorted_scores, by_score = TopK <axis = 1, largest = 1, sorted = 1> (scores_of_rows, row_count)

    all_but_last = Slice (sorted_scores, zero, minus_one, one)
    next_higher = Pad <mode = "constant"> (all_but_last, one_before, highest)
    is_lower = Less (sorted_scores, next_higher)
    row_count_int = Cast <to = 6> (row_count)
    step = Where (is_lower, row_count_int, zero_int)
    offset = CumSum (step, row_axis)
    by_score_int = Cast <to = 6> (by_score)
    key = Add (offset, by_score_int)
    sorted_key, order_of_key = TopK <axis = 1, largest = 0, sorted = 1> (key, row_count)
    ranked = Sub (sorted_key, offset)

    patches = Slice (ranked, prefix_end, row_count, one)
    prefix_int = Cast <to = 6> (prefix_end)
    perm = Sub (patches, prefix_int)

    ranked_long = Cast <to = 7> (ranked)
    index = Unsqueeze (ranked_long, two)
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


def operators_in(model: ir.Model) -> tuple[str, ...]:
    """Which of the two operators a model's graph uses, for its manifest."""
    return tuple(sorted({f"{node.domain}::{node.op_type}" for node in model.graph if is_operator(node)}))


def is_operator(node: ir.Node) -> bool:
    """Whether `node` is one of the two operators."""
    return node.domain == DOMAIN and node.op_type in (PARTITION, REARRANGE)
