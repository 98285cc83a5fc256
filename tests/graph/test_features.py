"""Exported features: put back once with elide, once a stage with plugin, and the same numbers as PyTorch."""

from collections.abc import Sequence

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.helpers import TWO_KEEP, TWO_STAGES, small_images, small_tofe
from tofe_export.errors import InputError
from tofe_export.graph.export import export_tofe
from tofe_export.graph.passes.taps import tapped_stages
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe

FEATURES = ("features",)


def run(model: ir.Model, images: torch.Tensor) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


def assert_equals_pytorch(model: ir.Model, network: ToFe, keep: Sequence[int], rearrange: bool) -> None:
    for batch in (1, 3):
        images = small_images(batch, seed=batch)
        with torch.no_grad():
            expected = network.forward_fixed(images, FixedPath(keep, rearrange, features=True))
        for name, value in run(model, images).items():
            wanted = expected.features if name == "features" else expected.logits
            assert wanted is not None
            np.testing.assert_allclose(value, wanted.numpy(), rtol=0, atol=1e-5)


def rearranges(model: ir.Model) -> list[int]:
    """Where in the graph's order tokens are put back."""
    return [index for index, node in enumerate(model.graph) if node.op_type == "ScatterRearrange"]


def block_ends(model: ir.Model) -> dict[int, int]:
    """Block -> where in the graph's order its last matrix product stands."""
    products = {at: (node.name or "").split(".") for at, node in enumerate(model.graph) if node.op_type == "MatMul"}
    return {int(name[2].split("/")[0]): at for at, name in products.items() if name[:2] == ["vit", "blocks"]}


@pytest.mark.parametrize(("starts", "keep"), [((1,), (8,)), (TWO_STAGES["stage_starts"], TWO_KEEP)])
def test_elide_puts_back_once_at_the_end_however_many_stages_there_are(
    starts: tuple[int, ...], keep: tuple[int, ...]
) -> None:
    network = small_tofe(depth=2, stage_starts=starts, dense_output=True)
    model = export_tofe(network, keep, rearrange=False, taps=False, outputs=FEATURES)
    (at,) = rearranges(model)
    assert sum(node.op_type == "TokenPartition" for node in model.graph) == len(starts)
    assert at > max(block_ends(model).values()), "after the last block"
    after = [node.op_type for node in list(model.graph)[at + 1 :]]
    assert "LayerNormalization" in after, "and before the final norm, of which the features are the patch rows"
    assert not {"MatMul", "Gemm", "TokenPartition"} & set(after)
    assert [output.name for output in model.graph.outputs] == ["features"]
    assert not any("vit.head" in name for name in model.graph.initializers), "nobody reads the logits"
    assert_equals_pytorch(model, network, keep, False)


def test_where_the_last_stages_keep_everything_it_is_once_after_the_last_that_does_not() -> None:
    network, keep = small_tofe(depth=3, stage_starts=(0, 1, 2), dense_output=True), (9, 12, 16)
    model = export_tofe(network, keep, rearrange=False, taps=False, outputs=FEATURES)
    assert tapped_stages(model) == [0, 1]
    (at,) = rearranges(model)
    ends = block_ends(model)
    assert ends[1] < at < ends[2]
    assert_equals_pytorch(model, network, keep, False)


def test_plugin_puts_back_after_every_stage() -> None:
    network = small_tofe(dense_output=True, **TWO_STAGES)
    model = export_tofe(network, TWO_KEEP, rearrange=True, taps=False, outputs=FEATURES)
    first, second = rearranges(model)
    ends = block_ends(model)
    assert ends[0] < first < ends[1] < second
    assert_equals_pytorch(model, network, TWO_KEEP, True)


@pytest.mark.parametrize(("backbone", "keep"), [("vit_tiny_patch16_224", TWO_KEEP), ("lvvit_s", (8,))])
def test_logits_and_features_come_in_the_order_asked_for(backbone: str, keep: tuple[int, ...]) -> None:
    stages = len(keep)
    network = small_tofe(backbone, dense_output=True, depth=stages, stage_starts=tuple(range(stages)))
    model = export_tofe(network, keep, rearrange=False, taps=True, outputs=("features", "logits"))
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    names = [output.name for output in model.graph.outputs]
    assert names[:2] == ["features", "logits"]
    assert names[2:] == [f"stage{stage}.{what}" for stage in range(stages) for what in ("scores", "perm", "tokens")]
    features = model.graph.outputs[0]
    assert features.shape is not None
    assert list(features.shape)[1:] == [16, 32]
    found = run(model, small_images(3))
    with torch.no_grad():
        expected = network.forward_fixed(small_images(3), FixedPath(keep, False, features=True))
    assert expected.features is not None
    np.testing.assert_allclose(found["features"], expected.features.numpy(), rtol=0, atol=1e-5)
    np.testing.assert_allclose(found["logits"], expected.logits.numpy(), rtol=0, atol=1e-5)
    for trace in expected.stages:
        assert np.array_equal(found[f"stage{trace.index}.perm"], trace.perm.numpy())
        np.testing.assert_allclose(found[f"stage{trace.index}.tokens"], trace.tokens.numpy(), rtol=0, atol=1e-4)


def test_a_network_without_a_selector_exports_without_the_operators() -> None:
    network = small_tofe(selector="none", depth=1)
    model = export_tofe(network, (), rearrange=True, taps=True, outputs=("logits", "features"))
    assert not model.functions
    assert {node.domain for node in model.graph} == {""}
    assert "tofe" not in model.opset_imports
    images = small_images(3)
    found = run(model, images)
    with torch.no_grad():
        np.testing.assert_allclose(found["logits"], network.vit(images).numpy(), rtol=0, atol=1e-5)
        features = network.vit.forward_features(images)[:, 1:].numpy()
    np.testing.assert_allclose(found["features"], features, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="no stages and keeps every token"):
        export_tofe(network, (8,), rearrange=True, taps=False)


def test_where_tokens_are_discarded_nothing_is_traced() -> None:
    for selector, approximator in (("mlp", "discard"), ("cls-attention", "fuse")):
        with pytest.raises(InputError, match="discards tokens"):
            export_tofe(
                small_tofe(selector=selector, approximator=approximator), (8, 5, 3), False, False, outputs=FEATURES
            )
