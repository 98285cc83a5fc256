"""What quantize leaves out it says, and says why; what else goes wrong is not taken for that."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import small_tofe
from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.manifest import manifest_path, read_manifest
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.errors import InputError
from tofe_export.precision.half import to_half
from tofe_export.workflows.calibrate_model import CalibrationOptions
from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx
from tofe_export.workflows.precision_forms import Timing
from tofe_export.workflows.quantize_model import QuantizeOptions, coarse_notes, half_beside, quantize_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = small_tofe()
    save(tmp_path / "ckpt.pth", Checkpoint(network, (0.5, 0.3, 0.2), Preprocessing.of_backbone(network.vit), {}, "x"))
    export_onnx(tmp_path / "ckpt.pth", tmp_path / "model.onnx", OnnxOptions())
    (tmp_path / "few.toml").write_text('[data]\nsource = "digits"\nsamples = 4\n')
    return tmp_path / "model.onnx"


def options(folder: Path) -> QuantizeOptions:
    calibration = CalibrationOptions(str(folder / "few.toml"), cache=folder / "ranges.npz")
    limits = {("", "top1_agreement"): 0.0, ("", "logits_max_abs"): 1e9, ("", "tokens_max_abs"): 1e9}
    return QuantizeOptions("int8", calibration, 4, Timing((1,), 1), limits)


def replace(model: Path, change: dict[str, float]) -> None:
    graph = ir.load(model)
    for name, factor in change.items():
        weight = graph.graph.initializers[name].const_value
        assert weight is not None
        values = np.array(weight.numpy())
        values.flat[0] = factor
        graph.graph.initializers[name].const_value = ir.tensor(values, name=name)
    ir.save(graph, model)
    known = json.loads(manifest_path(model).read_text())
    manifest_path(model).write_text(json.dumps({**known, "sha256": sha256(model)}))


def test_fp16_is_left_out_with_the_weight_that_it_cannot_hold(model: Path) -> None:
    replace(model, {"vit.head.bias": 1e5})
    target = model.with_name("model.int8.onnx")
    document = quantize_model(model, target, options(model.parent)).document
    why = "The weight vit.head.bias has values up to 1e+05, too large for FP16."
    assert document["left_out"] == [{"precision": "fp16", "why": why}]
    assert [found["precision"] for found in document["agreement"]] == ["int8"]
    assert {found["precision"] for found in document["speed"]} == {"fp32", "int8"}
    assert set(document["agreement"][0]["overridden"]) == {"top1_agreement", "logits_max_abs", "tokens_max_abs"}
    assert read_manifest(target)["coarse"] == {}


def test_no_other_refusal_leaves_fp16_out(model: Path) -> None:
    """A file that is in FP16 by mistake, under a manifest that says float32."""
    graph = ir.load(model)
    to_half(graph, "fp16")
    ir.save(graph, model)
    with pytest.raises(InputError, match="not in float32 any more"):
        half_beside(model)


def test_layers_rounded_more_coarsely_are_said() -> None:
    (note,) = coarse_notes({"vit.blocks.2.mlp.fc1/MatMul": 1}, "int8")
    assert note.startswith("vit.blocks.2.mlp.fc1/MatMul: 1 range below what scales in FP16 reach")
    assert coarse_notes({}, "int8") == []
