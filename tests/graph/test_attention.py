"""One node in place of each attention: the same numbers, and only where nothing else reads what lies between."""

import numpy as np
import onnx_ir as ir
import pytest
import torch

from tests.helpers import TWO_KEEP, TWO_STAGES, exported_tofe, small_images, small_tofe
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.graph.passes.attention import fuse_attention
from tofe_export.graph.stored import serialize, tensor_of
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner


def logits(model: ir.Model) -> np.ndarray:
    return np.asarray(OnnxRuntimeRunner(serialize(model)).run(small_images(3).numpy())["logits"])


def assert_fuses(model: ir.Model, attentions: int) -> None:
    expected = logits(model)
    assert fuse_attention(model) == attentions
    fused = [node for node in model.graph if node.domain == "com.microsoft"]
    assert [node.op_type for node in fused] == ["Attention"] * attentions
    np.testing.assert_allclose(logits(model), expected, rtol=0, atol=2e-6 * float(np.abs(expected).max() + 1))


def test_every_whole_attention_is_fused() -> None:
    """The last block is cut to its prefix rows."""
    model = exported_tofe()
    assert_fuses(model, 3)
    assert {str(node.name) for node in model.graph if node.op_type == "Attention"} == {
        f"vit.blocks.{block}.attn/Attention" for block in range(3)
    }
    assert fuse_attention(model) == 0


def test_the_dense_backbone_is_fused_alike() -> None:
    assert_fuses(export_dense(small_tofe(**TWO_STAGES)), 2)


def test_without_a_bias_there_are_zeros() -> None:
    network = small_tofe("lvvit_s", stage_starts=(1,), depth=2, stem=8)
    assert_fuses(export_dense(network), 2)


def test_the_scale_is_the_one_in_the_graph() -> None:
    model = export_dense(small_tofe(**TWO_STAGES))
    [factor] = {id(node.inputs[1]): node.inputs[1] for node in model.graph if node.op_type == "Mul"}.values()
    assert factor is not None
    factor.const_value = ir.tensor(np.float32(0.03), name=factor.name)
    assert_fuses(model, 2)


def test_attention_weights_that_rank_tokens_stay_visible() -> None:
    """Of EViT's two stages each one's first block is left as it is; the last is cut besides."""
    network = small_tofe(selector="cls-attention", approximator="fuse", **TWO_STAGES)
    model = export_tofe(network, TWO_KEEP, rearrange=False, taps=False)
    assert fuse_attention(model) == 0


def test_norms_of_queries_and_keys_are_not_lost() -> None:
    network = small_tofe("vit_tiny_patch16_224", depth=1, stage_starts=(0,), qk_norm=True)
    with torch.no_grad():
        model = export_dense(network)
    assert fuse_attention(model) == 0


@pytest.mark.parametrize("place", ["softmax", "queries"])
def test_what_somebody_reads_stays(place: str) -> None:
    model = export_dense(small_tofe(**TWO_STAGES))
    shown = next(node for node in model.graph if node.op_type == ("Softmax" if place == "softmax" else "Mul"))
    model.graph.outputs.append(shown.outputs[0])
    assert fuse_attention(model) == 1


def test_another_axis_order_is_another_thing() -> None:
    model = export_dense(small_tofe(**TWO_STAGES))
    swapped = next(node for node in model.graph if node.op_type == "Slice" and "blocks.0.attn" in str(node.name))
    starts, ends = swapped.inputs[1], swapped.inputs[2]
    assert tensor_of(starts).numpy().tolist() == [0]
    swapped.replace_input_with(1, ends)  # the second third instead of the first
    third = ir.Value(name="third", const_value=ir.tensor(np.array([2]), name="third"))
    third.type, third.shape = ir.TensorType(ir.DataType.INT64), ir.Shape([1])
    model.graph.initializers["third"] = third
    swapped.replace_input_with(2, third)
    assert fuse_attention(model) == 1
