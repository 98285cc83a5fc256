"""The whole network without functions: ONNX Runtime, OpenVINO, tract and TensorRT-RTX, and what becomes of onnxslim."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.helpers import SMALL_KEEP, TWO_KEEP, TWO_STAGES, VARIANTS, refused_as, small_images, small_tofe
from tests.readers.comparing import require_same, run_in_onnxruntime, run_in_tract
from tests.readers.conftest import Written
from tofe_export.api.export import export
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.graph.export import export_tofe
from tofe_export.graph.stored import read_onnx
from tofe_export.graph.targets import rewrite_for
from tofe_export.progress import silent
from tofe_export.runners.openvino_runner import OpenVinoRunner


def test_onnxruntime_computes_the_same_to_the_last_bit(written: Written) -> None:
    found = run_in_onnxruntime(written.inlined, {"images": written.images})
    assert list(found) == list(written.expected)
    assert all(np.array_equal(value, written.expected[name]) for name, value in found.items())


def test_the_file_has_standard_operators_alone(written: Written) -> None:
    model = onnx.load(written.inlined)
    onnx.checker.check_model(model, full_check=True)
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]


def test_the_verb_writes_such_a_file(tmp_path: Path) -> None:
    network = small_tofe(**TWO_STAGES)
    save(tmp_path / "ckpt.pth", Checkpoint(network, (0.5, 0.3), Preprocessing.of_backbone(network.vit), {}, "photos"))
    export(tmp_path / "ckpt.pth", tmp_path / "model.onnx", keep=TWO_KEEP, taps=True, inline=True)
    images = small_images(2).numpy()
    expected = run_in_onnxruntime(tmp_path / "model.onnx", {"images": images})
    require_same(expected, OpenVinoRunner(tmp_path / "model.onnx", threads=1).run(images))


@pytest.mark.parametrize("batch", [1, 3])
def test_openvino(written: Written, batch: int) -> None:
    expected = {name: value[:batch] for name, value in written.expected.items()}
    require_same(expected, OpenVinoRunner(written.inlined, threads=1).run(written.images[:batch]))


@pytest.mark.parametrize(("selector", "approximator", "rearrange"), VARIANTS[1::2])
def test_every_selector_and_approximator_in_openvino(selector: str, approximator: str, rearrange: bool) -> None:
    model = small_tofe(selector=selector, approximator=approximator, **TWO_STAGES)
    graph = export_tofe(model, SMALL_KEEP[: len(model.stages)], rearrange, taps=True)
    rewrite_for(graph, "any")
    content = ir.to_proto(graph).SerializeToString()
    images = small_images(2).numpy()
    require_same(run_in_onnxruntime(content, {"images": images}), OpenVinoRunner(content, threads=1).run(images))


def test_openvino_knows_no_functions(written: Written) -> None:
    with refused_as("openvino-refuses"):
        OpenVinoRunner(written.portable)


@pytest.mark.parametrize("batch", [1, 3])
def test_tract(written: Written, batch: int) -> None:
    pytest.importorskip("tract", reason="tract is not installed: make readers")
    expected = {name: value[:batch] for name, value in written.expected.items()}
    found = run_in_tract(written.inlined, {"images": written.images[:batch]}, list(expected))
    require_same(expected, found)


def test_tract_knows_no_functions(written: Written) -> None:
    tract = pytest.importorskip("tract", reason="tract is not installed: make readers")
    with pytest.raises(tract.TractError, match="Unimplemented"):
        run_in_tract(written.portable, {"images": written.images}, list(written.expected))


def test_tensorrt_rtx_builds_it(written: Written) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
    options = BuildOptions(backend="rtx", batch=BatchProfile(1, 2, 4))
    built = build_engine(read_onnx(written.inlined), open_backend("rtx"), options, "fp32", silent)
    assert not built.operators, "there is nothing left that a plugin could take"
    assert built.network.outputs["stage2.perm"] == ("int32", (-1, 16))
    assert set(built.network.outputs) == set(written.expected)


def test_onnxslim_changes_no_output(written: Written) -> None:
    onnxslim = pytest.importorskip("onnxslim", reason="onnxslim is not installed: make readers")
    for file in (written.portable, written.inlined):
        content = onnxslim.slim(onnx.load(file)).SerializeToString()
        assert content != file.read_bytes()
        found = run_in_onnxruntime(content, {"images": written.images})
        assert all(np.array_equal(value, written.expected[name]) for name, value in found.items())
