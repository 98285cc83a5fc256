"""The published JSON Schemas are those of the classes, and what the program writes fits them."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.documents.test_old import PATHS, READERS
from tests.helpers import small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.doctor import doctor
from tofe_export.api.export import export
from tofe_export.api.inspect import inspect
from tofe_export.api.quantize import quantize
from tofe_export.api.sensitivity import sensitivity
from tofe_export.api.tune import tune
from tofe_export.api.verify import verify
from tofe_export.artifacts.manifests import manifest_path
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.preprocessing import Preprocessing
from tools.schemas import DOCUMENTS, FOLDER, schema_of

SETTINGS: dict[str, Any] = {"batches": (1,), "rounds": 2, "processes": 2, "threads": 1}
RECIPE = '[data]\nsource = "digits"\nsamples = 8\n'


def published(name: str) -> dict[str, Any]:
    schema = json.loads((FOLDER / f"{name}.json").read_text())
    assert isinstance(schema, dict)
    return schema


@pytest.mark.parametrize("name", DOCUMENTS)
def test_the_published_schema_is_current(name: str) -> None:
    assert published(name) == json.loads(schema_of(name)), "run: python tools/schemas.py"


def test_every_published_schema_has_a_document() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(DOCUMENTS)


def complaints(name: str, text: str) -> list[str]:
    """Where a document does not fit its schema."""
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is in the extra dev")
    validator = jsonschema.Draft202012Validator(published(name))
    validator.check_schema(published(name))
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(json.loads(text))]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Schema -> documents that the program wrote just now."""
    folder = tmp_path_factory.mktemp("written")
    model, recipe = small_tofe(num_classes=10), folder / "few.toml"
    recipe.write_text(RECIPE)
    preprocessing = Preprocessing.of_backbone(model.vit)
    save(folder / "ckpt.pth", Checkpoint(model, (0.5, 0.3, 0.2), preprocessing, {"loss": 0.5}, "digits"))
    checkpoint = load(folder / "ckpt.pth")
    artifact = export(checkpoint, folder / "model.onnx")
    cache = folder / "ranges.npz"
    int8 = quantize(artifact, recipe=recipe, cache=cache, samples=8, **SETTINGS)
    first = bench([artifact, checkpoint], **SETTINGS)
    (folder / "cut.onnx").write_bytes(artifact.path.read_bytes())
    (folder / "cut.onnx.json").write_text("{")
    return {
        "bench": [first.to_json(), bench(artifact, baseline=first, **SETTINGS).to_json()],
        "doctor": [doctor().to_json()],
        "inspect": [inspect(one).to_json() for one in (checkpoint, artifact, int8)],
        "manifest": [manifest_path(one.path).read_text() for one in (artifact, int8)],
        "quantize": [int8.quantization.to_json()],
        "sensitivity": [sensitivity(artifact, recipe=recipe, cache=cache, samples=8).to_json()],
        "tune": [tune(checkpoint, macs=0.9, samples=8, rounds=1, processes=1, threads=1).to_json()],
        "verify": [
            verify(artifact, against=checkpoint, samples=8).to_json(),
            verify(folder / "cut.onnx", against=checkpoint).to_json(),
        ],
        "verify-several": [verify([artifact, int8], against=checkpoint, samples=8).to_json()],
    }


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_the_program_writes_fits_the_schema(name: str, written: dict[str, list[str]]) -> None:
    for text in written[name]:
        assert complaints(name, text) == []


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_old_document_that_is_written_again_fits_the_schema(path: Path) -> None:
    kind = path.stem if path.stem in DOCUMENTS else path.stem.partition("-")[0]
    assert complaints(kind, READERS[path.stem](path).to_json()) == []


def test_a_document_with_a_hole_does_not_fit(written: dict[str, list[str]]) -> None:
    whole = json.loads(written["bench"][0])
    for place, value in (("rows", None), ("schema", "tofe-export/bench/2")):
        assert complaints("bench", json.dumps({**whole, place: value}))
    cut = copy.deepcopy(whole)
    del cut["rows"][0]["p50_ms"]
    assert complaints("bench", json.dumps(cut)) == ["$.rows[0]: 'p50_ms' is a required property"]
