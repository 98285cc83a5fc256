"""What quantize leaves out it says, and says why; what else goes wrong is not taken for that."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import small_images, small_tofe
from tofe_export.api.export import export
from tofe_export.api.quantize import coarse_notes, half_beside, quantize
from tofe_export.api.sensitivity import sensitivity
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.artifacts.manifests import manifest_path, read_manifest
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.quantization import Quantization, Sensitivity
from tofe_export.documents.recipe import QuantizePolicy
from tofe_export.errors import InputError
from tofe_export.files.reading import sha256
from tofe_export.graph.stored import read_onnx
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import is_quantized
from tofe_export.precision.recipe import read_recipe

ONCE = {"batches": (1,), "rounds": 1, "processes": 1}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network = small_tofe()
    save(tmp_path / "ckpt.pth", Checkpoint(network, (0.5, 0.3, 0.2), Preprocessing.of_backbone(network.vit), {}, "x"))
    (tmp_path / "few.toml").write_text('[data]\nsource = "digits"\nsamples = 4\n')
    return export(tmp_path / "ckpt.pth", tmp_path / "model.onnx").path


def quick(model: Path) -> dict[str, Any]:
    return {"recipe": model.with_name("few.toml"), "cache": model.with_name("ranges.npz"), "samples": 4, **ONCE}


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
    limits = {"top1_agreement": 0.0, "logits_max_abs": 1e9, "tokens_max_abs": 1e9}
    quantized = quantize(model, tolerances=limits, **quick(model))
    result = quantized.quantization
    (omitted,) = result.left_out
    assert omitted.precision == "fp16"
    assert omitted.why == "The weight vit.head.bias has values up to 1e+05, too large for FP16."
    assert [one.precision for one in result.agreement] == ["int8"]
    assert {one.precision for one in result.speed} == {"fp32", "int8"}
    assert result.quantized.overridden == limits
    assert quantized.path == target, "the default"
    assert quantized.manifest == read_manifest(target)
    assert quantized.manifest.coarse == {}
    assert Quantization.model_validate(json.loads(result.to_json())) == result


def test_no_other_refusal_leaves_fp16_out(model: Path) -> None:
    """A file that is in FP16 by mistake, under a manifest that says float32."""
    graph = ir.load(model)
    to_half(graph, "fp16")
    ir.save(graph, model)
    with pytest.raises(InputError) as caught:
        half_beside(read_onnx(model))
    assert caught.value.code == "not-float32"


def test_layers_rounded_more_coarsely_are_said() -> None:
    (note,) = coarse_notes({"vit.blocks.2.mlp.fc1/MatMul": 1}, "int8")
    assert note.startswith("vit.blocks.2.mlp.fc1/MatMul: 1 range below what scales in FP16 reach")
    assert coarse_notes({}, "int8") == ()


def test_an_artifact_and_a_recipe_in_memory_serve_as_well_as_files(model: Path) -> None:
    artifact = open_artifact(model)
    recipe = read_recipe(model.with_name("few.toml")).replaced(quantize=QuantizePolicy(attention=False))
    quantized = quantize(artifact, **{**quick(model), "recipe": recipe})
    assert quantized.quantization.layers.high_precision["attention"] == 8
    assert quantized.manifest.calibration is not None
    assert quantized.manifest.calibration.recipe == recipe
    assert quantized.manifest.origin == artifact.manifest.source
    assert np.isfinite(quantized.open().run(small_images(2).numpy())["logits"]).all()
    assert not is_quantized(artifact.graph), "it is shared, and was not changed"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"precision": "fp16"}, "unknown-value"),
        ({"path": "x.engine"}, "not-onnx-name"),
        ({"recipe": None}, "recipe-missing"),
        ({"recipe": "imagenet"}, "recipe-images-missing"),
        ({"tolerances": {"bf16.kl_mean": 1.0}}, "tolerance-unused"),
    ],
)
def test_arguments_that_cannot_be_used(model: Path, arguments: dict[str, Any], code: str) -> None:
    before = sorted(model.parent.iterdir())
    with pytest.raises(InputError) as caught:
        quantize(model, **{**quick(model), **arguments})
    assert caught.value.code == code
    assert sorted(model.parent.iterdir()) == before


def test_each_kind_of_layer_has_a_cost(model: Path) -> None:
    arguments = {name: value for name, value in quick(model).items() if name not in ONCE}
    result = sensitivity(model, **arguments)
    assert [cost.layers for cost in result.kinds if cost.kind == "attention"] == [8]
    assert {cost.kind for cost in result.kinds if cost.quantized_by_recipe} == {
        "qkv",
        "attention",
        "proj",
        "fc1",
        "fc2",
    }
    lost = [1 - (cost.top1_agreement or 0) for cost in result.kinds]
    assert lost == sorted(lost, reverse=True), "the costliest first; without labels by classes"
    assert Sensitivity.model_validate(json.loads(result.to_json())) == result
