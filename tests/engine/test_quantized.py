"""TensorRT-RTX builds every quantized form without a GPU, and the parsed network computes in 8 bits."""

from pathlib import Path

import pytest

from tofe_export.api.build import build
from tofe_export.api.quantize import quantize
from tofe_export.artifacts.manifests import read_manifest
from tofe_export.documents.manifest import EngineManifest
from tofe_export.errors import InputError
from tofe_export.progress import silent
from tofe_export.timing.dense import Place, dense_twin
from tofe_export.timing.subjects import EngineFile

FP8_GPUS = ("89", "120")
QUICK = {"samples": 4, "batches": (1, 2), "rounds": 2, "processes": 1}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "few.toml"
    path.write_text('[data]\nsource = "photos"\nsamples = 8\n')
    return path


def products(manifest: EngineManifest) -> dict[str, int]:
    return manifest.network.layers["MATRIX_MULTIPLY"]


@pytest.mark.parametrize("form", ["plugin", "elide"])
@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_straight_from_float32(
    precision: str, form: str, models: dict[str, Path], recipe: Path, tmp_path: Path
) -> None:
    gpus = FP8_GPUS if precision == "fp8" else ()
    manifest = build(
        models[form],
        tmp_path / "model.engine",
        precision=precision,
        backend="rtx",
        compute_capabilities=gpus,
        recipe=recipe,
        cache=tmp_path / "ranges.npz",
    ).manifest
    assert products(manifest)[precision] == 3 + 4 + 2 + 2 + 2
    assert manifest.network.layers["CONVOLUTION"] == {"fp16": 1}
    assert (manifest.precision, manifest.around) == (precision, "fp16")
    assert manifest.calibration is not None
    assert manifest.calibration.recipe.data.samples == 8
    assert manifest.checkpoint == read_manifest(models[form]).source


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_from_a_file_that_was_quantized_for_onnx_runtime(
    precision: str, models: dict[str, Path], recipe: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.quantized.onnx"
    model = quantize(models["plugin"], path, precision=precision, recipe=recipe, cache=tmp_path / "ranges.npz", **QUICK)
    assert model.quantization.around == "fp32"
    gpus = FP8_GPUS if precision == "fp8" else ()
    options = {"backend": "rtx", "compute_capabilities": gpus}
    manifest = build(model, tmp_path / "model.engine", precision=precision, **options).manifest
    assert products(manifest)[precision] == 3 + 4 + 2 + 2 + 2
    assert (manifest.precision, manifest.around) == (precision, "fp16")
    assert manifest.checkpoint == read_manifest(models["plugin"]).source
    assert manifest.source.file == path.name
    with pytest.raises(InputError) as caught:
        build(model, tmp_path / "other.engine", precision="fp16", backend="rtx")
    assert (caught.value.code, caught.value.details["precision"]) == ("precision-of-file", precision)
    with pytest.raises(InputError) as caught:
        build(model, tmp_path / "other.engine", precision=precision, backend="rtx", recipe=recipe)
    assert caught.value.code == "calibration-unused"


@pytest.mark.parametrize("recipe", ["conservative", "matmuls"])
def test_with_the_shipped_recipes(recipe: str, models: dict[str, Path], tmp_path: Path) -> None:
    options = {"precision": "int8", "backend": "rtx", "recipe": recipe, "cache": tmp_path / "ranges.npz"}
    manifest = build(models["plugin"], tmp_path / "model.engine", **options).manifest
    assert products(manifest)["int8"] == {"conservative": 3 + 2 + 2, "matmuls": 3 + 4 + 2 + 2 + 2 + 2}[recipe]


def test_the_dense_twin_of_an_engine_is_an_engine_in_its_precision(
    models: dict[str, Path], recipe: Path, tmp_path: Path
) -> None:
    options = {"precision": "int8", "backend": "rtx", "recipe": recipe, "cache": tmp_path / "ranges.npz"}
    engine = build(models["elide"], tmp_path / "model.engine", **options)
    file = EngineFile(path=engine.path, backend="rtx", precision="int8")
    (tmp_path / "twins").mkdir()
    twin = dense_twin(engine, file, Place(tmp_path / "twins", 1, silent))
    assert isinstance(twin.file, EngineFile)
    assert (twin.file.backend, twin.file.precision) == ("rtx", "int8")
    assert twin.file.path.parent == tmp_path / "twins"
    assert twin.file.path.stat().st_size > 0
