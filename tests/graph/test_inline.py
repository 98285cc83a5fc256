"""Without model-local functions the graph computes the same, bit for bit, and can still be looked into."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.helpers import TWO_KEEP, exported_tofe, small_images
from tofe_export.graph.passes.inline import inline_operators, kept_counts
from tofe_export.graph.passes.taps import show_taps, tapped_stages
from tofe_export.graph.stored import serialize
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

OPERATORS = {True: 3, False: 2}
"""In two stages, of which the last is cut: two partitions, and one rearrangement unless tokens stay by rank."""


@pytest.mark.parametrize("rearrange", [True, False])
def test_every_value_is_the_same(rearrange: bool) -> None:
    model = exported_tofe(rearrange=rearrange, short=True)
    show_taps(model)
    images = small_images(3).numpy()
    expected = OnnxRuntimeRunner(serialize(model)).run(images)
    assert inline_operators(model) == OPERATORS[rearrange]
    assert not model.functions
    assert {node.domain for node in model.graph} == {""}
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    values = OnnxRuntimeRunner(serialize(model)).run(images)
    assert values.keys() == expected.keys()
    for name, value in expected.items():
        assert np.array_equal(values[name], value), name


def test_names_say_which_operator_a_node_belongs_to() -> None:
    model = exported_tofe(short=True)
    inline_operators(model)
    nodes = Counter(str(node.name) for node in model.graph)
    assert max(nodes.values()) == 1
    assert {"stages.0/TokenPartition/TopK", "stages.1/TokenPartition/TopK"} <= set(nodes)
    values = Counter(str(value.name) for node in model.graph for value in node.outputs)
    assert max(values.values()) == 1
    assert tapped_stages(model) == [0, 1]


def test_keep_counts_can_be_read_before_and_after() -> None:
    model = exported_tofe(short=True)
    assert kept_counts(model, 1) == list(TWO_KEEP)
    inline_operators(model)
    assert kept_counts(model, 1) == list(TWO_KEEP)
    # What the graph does counts, not what somebody wrote down.
    end = model.graph.initializers["stages.1/TokenPartition/kept_end"]
    end.const_value = ir.tensor(np.array([5]), name=end.name)
    assert kept_counts(model, 1) == [8, 4]
