"""Documents of earlier versions load, and say the same when they are written again.

Those in `old/` are whole documents of version 0.1.0 before documents had classes; those in `older/` lack
what came later.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tofe_export.artifacts.manifests import read_manifest_alone
from tofe_export.documents.base import Document, read_document
from tofe_export.documents.benchmark import Benchmark
from tofe_export.documents.diagnosis import Diagnosis
from tofe_export.documents.inspection import CheckpointInspection, EngineInspection, OnnxInspection
from tofe_export.documents.quantization import Quantization, Sensitivity
from tofe_export.documents.verification import read_verifications

HERE = Path(__file__).parent


def reader(kind: type[Document]) -> Callable[[Path], Document]:
    return lambda path: read_document(kind, path, "")


READERS: dict[str, Callable[[Path], Document]] = {
    "verify": lambda path: read_verifications(path, ""),
    "verify-several": lambda path: read_verifications(path, ""),
    "bench": reader(Benchmark),
    "bench-judged": reader(Benchmark),
    "quantize": reader(Quantization),
    "sensitivity": reader(Sensitivity),
    "doctor": reader(Diagnosis),
    "inspect-checkpoint": reader(CheckpointInspection),
    "inspect-onnx": reader(OnnxInspection),
    "inspect-engine": reader(EngineInspection),
    "manifest-onnx": read_manifest_alone,
    "manifest-int8": read_manifest_alone,
    "manifest-engine": read_manifest_alone,
}
PATHS = sorted([*HERE.glob("old/*.json"), *HERE.glob("older/*.json")])
RENAMED = {"artefacts": "artifacts"}


def test_every_kind_of_document_is_here() -> None:
    assert {path.stem for path in HERE.glob("old/*.json")} == set(READERS)
    assert len(list(HERE.glob("older/*.json"))) >= 2


@pytest.mark.parametrize("path", PATHS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_it_loads_and_says_the_same(path: Path, tmp_path: Path) -> None:
    before = json.loads(path.read_text())
    document = READERS[path.stem](path)
    assert lost(before, json.loads(document.to_json())) == []
    (tmp_path / path.name).write_text(document.to_json())
    assert READERS[path.stem](tmp_path / path.name) == document


def lost(before: Any, after: Any, place: str = "") -> list[str]:
    """What a document said that another one does not; what has come since then does not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        named = {RENAMED.get(key, key): value for key, value in before.items()}
        return [
            problem
            for key, value in named.items()
            for problem in (lost(value, after[key], f"{place}.{key}") if key in after else [f"{place}.{key}"])
        ]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        return [
            problem
            for index, pair in enumerate(zip(before, after, strict=True))
            for problem in lost(*pair, f"{place}.{index}")
        ]
    return [] if before == after else [f"{place}: {before!r} became {after!r}"]


def test_what_old_rows_do_not_say_is_known_all_the_same() -> None:
    benchmark = read_document(Benchmark, HERE / "older" / "bench.json", "")
    assert [row.dense for row in benchmark.rows] == [True, False]
    assert all(row.calls is None for row in benchmark.rows)
    assert benchmark.dense_of(benchmark.rows[1]) is benchmark.rows[0]
    judged = read_document(Benchmark, HERE / "old" / "bench-judged.json", "").baseline
    assert judged is not None
    assert len(judged.failures) == 5
    (artifact,) = read_verifications(HERE / "older" / "verify.json", "").artifacts
    assert (artifact.model_sha256, artifact.exit_code) == ("", 0)
    several = read_verifications(HERE / "old" / "verify-several.json", "")
    assert (several.exit_code, len(several.artifacts)) == (1, 2)
    assert all(failure.startswith("model.int8.onnx: ") for failure in several.failures)


def test_rows_of_the_published_figures_load() -> None:
    groups = json.loads((HERE.parents[1] / "benchmarks" / "results" / "methods.json").read_text())["groups"]
    for group in groups.values():
        benchmark = Benchmark.model_validate({"settings": group["settings"], "rows": group["rows"]})
        assert benchmark.rows[0].dense
        assert any(not row.dense for row in benchmark.rows)
