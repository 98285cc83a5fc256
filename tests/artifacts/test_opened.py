"""A twin shows what the deployed file hides; where it was built apart, the file's outputs are judged by themselves."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.helpers import SMALL_KEEP, exported_tofe, small_images, small_tofe
from tofe_export.artifacts.opened import Opened
from tofe_export.data.images import Batch
from tofe_export.errors import InputError
from tofe_export.graph.passes.taps import show_taps
from tofe_export.graph.stored import read_onnx
from tofe_export.model.fixed_path import FixedPath
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.side_by_side import compare
from tofe_export.runners.base import Array, Runner
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner


def runner_of(model: ir.Model) -> Runner:
    return OnnxRuntimeRunner(ir.to_proto(model).SerializeToString())


def compared(deployed: ir.Model) -> Comparison:
    """`deployed` with a twin of the right model beside it, as an engine without taps gets one."""
    runner, right = runner_of(deployed), exported_tofe()
    show_taps(right)
    opened = Opened(runner, right, runner_of, shows_stages=False, built_apart=True)
    assert opened.stages_of_twin
    batch = Batch(small_images(6, 1), None, ("x",) * 6)
    return compare(small_tofe(), opened, FixedPath(SMALL_KEEP, True), [batch])


def test_a_twin_built_apart_is_said_and_leaves_the_outputs_to_themselves() -> None:
    found = compared(exported_tofe())
    assert not found.failures
    document = found.agreement().to_dict()
    assert document["stages_of"] == "twin"
    assert len(document["stages"]) == 3
    assert document["logits_same_selection"] is None


@pytest.mark.parametrize("weight", ["vit.head.bias", "vit.blocks.2.mlp.fc1.weight.T"])
def test_a_fault_of_the_file_that_its_twin_has_not_is_found_in_its_logits(weight: str) -> None:
    model = exported_tofe()
    tensor = model.graph.initializers[weight].const_value
    assert tensor is not None
    model.graph.initializers[weight].const_value = ir.tensor(tensor.numpy()[..., ::-1].copy(), name=weight)
    sentences = compared(model).failures
    assert any("cosine of the logits" in sentence for sentence in sentences)


def test_what_a_runtime_cannot_show_is_left_out_of_the_modules() -> None:
    model = exported_tofe()
    images = small_images(2).numpy()
    every, some = (
        Opened(runner_of(model), model, runner_of, shows_stages=True, built_apart=False, unseen=unseen)
        for unseen in ((), (".attn.qkv",))
    )
    left_out = every.run_modules(images).keys() - some.run_modules(images).keys()
    assert left_out == {f"vit.blocks.{block}.attn.qkv" for block in range(4)} & every.run_modules(images).keys()
    assert left_out


class Counted:
    """A runner that counts its images; `off` is added to its logits."""

    backend, precision = "counted", "fp32"

    def __init__(self, model: ir.Model, off: float = 0.0) -> None:
        self.runner, self.off, self.images = runner_of(model), off, 0

    def run(self, images: Array) -> dict[str, Array]:
        self.images += len(images)
        outputs = self.runner.run(images)
        return {**outputs, "logits": outputs["logits"] + np.float32(self.off)}


@pytest.mark.parametrize(("off", "ran"), [(0.0, 16), (1e-7, 16), (1e-2, 48)])
def test_a_twin_of_the_same_graph_stands_for_the_file_once_both_agreed_on_enough_images(off: float, ran: int) -> None:
    shown = exported_tofe()
    show_taps(shown)
    file = Counted(exported_tofe(), off)
    opened = Opened(file, shown, runner_of, shows_stages=False, built_apart=False)
    images = small_images(48).numpy()
    expected = file.runner.run(images)["logits"] + np.float32(off)
    logits = [opened.run(images[start : start + 8])["logits"] for start in range(0, 48, 8)]
    assert file.images == ran
    np.testing.assert_allclose(np.concatenate(logits), expected, rtol=0, atol=1e-5)


def renamed_to_bytes(model: onnx.ModelProto) -> bytes:
    content = model.SerializeToString()
    name = model.graph.node[3].output[0].encode()
    return content.replace(name, b"\xff" + name[1:])


def reading_nothing(model: onnx.ModelProto) -> bytes:
    model.graph.node[3].input[0] = "nobody makes this"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("spoil", [renamed_to_bytes, reading_nothing])
def test_a_graph_with_a_hole_is_refused_when_it_is_read(
    spoil: Callable[[onnx.ModelProto], bytes], tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(spoil(ir.to_proto(exported_tofe())))
    with pytest.raises(InputError) as caught:
        read_onnx(path)
    assert caught.value.code == "not-onnx"
