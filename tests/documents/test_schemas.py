"""The published JSON Schemas are those of the classes, and what the program writes fits them."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.documents.test_old import PATHS, READERS
from tools.schemas import DOCUMENTS, FOLDER, schema_of

ROOT = Path(__file__).parents[2]


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
    """Schema -> documents that the program wrote just now, in a process of its own."""
    folder = tmp_path_factory.mktemp("written")
    command = [sys.executable, "-m", "tests.documents.written", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr[-3000:]}"
    texts = json.loads((folder / "documents.json").read_text())
    assert isinstance(texts, dict)
    return texts


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
