"""TensorRT-RTX builds every quantized form without a GPU, and the parsed network computes in 8 bits."""

from pathlib import Path

import pytest

from tofe_export.artifacts.manifest import read_manifest
from tofe_export.engine.options import BuildOptions
from tofe_export.errors import InputError
from tofe_export.workflows.build_engine import build_from_onnx
from tofe_export.workflows.calibrate_model import CalibrationOptions
from tofe_export.workflows.precision_forms import Timing
from tofe_export.workflows.quantize_model import QuantizeOptions, quantize_model

FP8_GPUS = ("89", "120")
QUICK = Timing(batches=(1, 2), rounds=2)


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> CalibrationOptions:
    folder = tmp_path_factory.mktemp("recipes")
    path = folder / "few.toml"
    path.write_text('[data]\nsource = "photos"\nsamples = 8\n')
    return CalibrationOptions(str(path), cache=folder / "ranges.npz")


def heavy(manifest: dict) -> dict[str, int]:  # type: ignore[type-arg]
    return dict(manifest["network"]["layers"]["MATRIX_MULTIPLY"])


@pytest.mark.parametrize("form", ["plugin", "elide"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_straight_from_float32(
    precision: str, form: str, models: dict[str, Path], calibration: CalibrationOptions, tmp_path: Path
) -> None:
    gpus = FP8_GPUS if precision == "fp8" else ()
    options = BuildOptions(precision=precision, backend="rtx", compute_capabilities=gpus)
    mine = CalibrationOptions(calibration.recipe, cache=tmp_path / "ranges.npz")
    manifest = build_from_onnx(models[form], tmp_path / "model.engine", options, calibration=mine).manifest
    assert heavy(manifest)[precision] == 5 + 8 + 4 + 4 + 4
    assert manifest["network"]["layers"]["CONVOLUTION"] == {"fp16": 1}
    assert (manifest["precision"], manifest["around"]) == (precision, "fp16")
    assert manifest["calibration"]["recipe"]["data"]["samples"] == 8
    assert manifest["checkpoint"] == read_manifest(models[form])["source"]


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_from_a_file_that_was_quantized_for_onnx_runtime(
    precision: str, models: dict[str, Path], calibration: CalibrationOptions, tmp_path: Path
) -> None:
    made = tmp_path / "model.quantized.onnx"
    options = QuantizeOptions(precision, calibration, samples=4, timing=QUICK)
    document = quantize_model(models["plugin"], made, options).document
    assert document["around"] == "fp32"
    gpus = FP8_GPUS if precision == "fp8" else ()
    build = BuildOptions(precision=precision, backend="rtx", compute_capabilities=gpus)
    manifest = build_from_onnx(made, tmp_path / "model.engine", build).manifest
    assert heavy(manifest)[precision] == 5 + 8 + 4 + 4 + 4
    assert (manifest["precision"], manifest["around"]) == (precision, "fp16")
    assert manifest["checkpoint"] == read_manifest(models["plugin"])["source"]
    assert manifest["source"]["file"] == made.name
    other = BuildOptions(precision="fp16", backend="rtx")
    with pytest.raises(InputError, match=f"The file is in {precision}.*Add --{precision}"):
        build_from_onnx(made, tmp_path / "other.engine", other)


@pytest.mark.parametrize("recipe", ["conservative", "matmuls"])
def test_with_the_shipped_recipes(recipe: str, models: dict[str, Path], tmp_path: Path) -> None:
    calibration = CalibrationOptions(recipe, cache=tmp_path / "ranges.npz")
    options = BuildOptions(precision="int8", backend="rtx")
    manifest = build_from_onnx(models["plugin"], tmp_path / "model.engine", options, calibration=calibration).manifest
    assert heavy(manifest)["int8"] == {"conservative": 5 + 4 + 4, "matmuls": 5 + 8 + 4 + 4 + 4 + 4}[recipe]
