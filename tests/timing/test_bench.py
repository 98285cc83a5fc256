"""Rows carry the contract's fields, and the dense backbone is always there, in the form of its model."""

from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch

from tests.helpers import refusal, small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.export import export
from tofe_export.api.optimize import optimize
from tofe_export.api.quantize import quantize
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.base import read_document
from tofe_export.documents.benchmark import Benchmark
from tofe_export.files.reading import sha256
from tofe_export.files.writing import write_text
from tofe_export.graph.stored import read_onnx
from tofe_export.precision.kinds import quantizable
from tofe_export.precision.quantize import is_quantized
from tofe_export.progress import silent
from tofe_export.timing.dense import Place, dense_twin
from tofe_export.timing.groups import open_groups
from tofe_export.timing.subjects import CheckpointFile, EngineFile, OnnxFile

FIELDS = {
    "name", "backend", "precision", "batch", "p50_ms", "p90_ms", "p99_ms", "images_per_s", "gmacs", "speedup",
    "speedup_low", "speedup_high", "speedups", "processes", "realised_fraction", "efficiency", "calls", "dense",
    "model_sha256",
}  # fmt: skip


ONCE: dict[str, Any] = {"rounds": 1, "processes": 1, "threads": 1}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bench")
    model = small_tofe()
    paths = {name: folder / name for name in ("ckpt.pth", "plugin.onnx", "elide.onnx")}
    save(paths["ckpt.pth"], Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    for form in ("plugin", "elide"):
        export(paths["ckpt.pth"], paths[f"{form}.onnx"], rearrange=form)
    return paths


def test_rows(files: dict[str, Path], tmp_path: Path) -> None:
    models = [files["plugin.onnx"], str(files["elide.onnx"]), load(files["ckpt.pth"])]
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    benchmark = bench(models, batches=(1, 2), rounds=2, processes=2, threads=1)
    assert torch.equal(torch.random.get_rng_state(), before), "dense twins are not drawn from the generator of others"
    assert torch.get_num_threads() == threads, "only workers set theirs"
    rows = benchmark.rows
    assert all(set(row.to_dict()) == FIELDS for row in rows)
    dense = "vit_tiny_patch16_224 (dense)"
    assert [(row.backend, row.batch, row.name) for row in rows] == [
        *(("onnxruntime", batch, name) for batch in (1, 2) for name in (dense, "plugin.onnx", "elide.onnx")),
        *(("torch", batch, name) for batch in (1, 2) for name in (dense, "ckpt.pth")),
    ]
    for row in rows:
        promised = rows[0].gmacs / row.gmacs
        assert row.realised_fraction == pytest.approx(row.speedup / promised)
        assert row.images_per_s == pytest.approx(row.batch / row.p50_ms * 1e3)
        assert row.speedup_low is not None
        assert row.speedup_high is not None
        assert row.speedup_low <= row.speedup <= row.speedup_high
        assert (row.processes, len(row.speedups)) == (2, 2)
        assert row.dense == (row.name == dense)
        assert row.calls is not None
        assert row.calls >= 20
        assert (row.p90_ms is not None, row.p99_ms is not None) == (row.calls >= 100, row.calls >= 1000)
        assert row.efficiency is not None
        assert row.efficiency > 0
        if row.dense:
            assert (row.speedup, row.model_sha256) == (1, "")
        else:
            assert row.model_sha256 == sha256(files[row.name])
            assert benchmark.dense_of(row) is next(one for one in rows if one.dense and one.key[1:] == row.key[1:])
    settings = benchmark.settings
    assert (settings.threads, settings.rounds, settings.processes, settings.batches) == (1, 2, 2, (1, 2))
    assert (settings.seed, settings.warm_up_calls) == (0, 2)
    write_text(tmp_path / "bench.json", benchmark.to_json())
    assert read_document(Benchmark, tmp_path / "bench.json", "") == benchmark


def test_one_process_has_no_interval(files: dict[str, Path]) -> None:
    row = bench(files["elide.onnx"], batches=1, **ONCE).rows[-1]
    assert (row.speedup_low, row.speedup_high, row.speedups) == (None, None, (row.speedup,))


@pytest.mark.slow
def test_a_recorded_run_judges_the_new_one(files: dict[str, Path], tmp_path: Path) -> None:
    artifact, path = open_artifact(files["plugin.onnx"]), tmp_path / "old.json"
    told: list[tuple[str, int, int]] = []
    arguments: dict[str, Any] = {"batches": (1,), "rounds": 2, "processes": 2, "threads": 1}
    first = bench(artifact, progress=lambda *said: told.append(said), **arguments)
    assert set(told) == {("Timing onnxruntime fp32", done, 8) for done in range(9)}, "two of products, two of models"
    assert first.baseline is None

    def times(factor: float) -> Benchmark:
        rows = [
            row.replaced(speedup=row.speedup * factor, speedups=tuple(one * factor for one in row.speedups))
            for row in first.rows
        ]
        return first.replaced(rows=tuple(rows))

    path.write_text(times(0.01).to_json())
    gate = bench(artifact, baseline=path, max_regression=0.5, **arguments).baseline
    assert gate is not None
    assert (gate.passed, gate.file, gate.rows[0].verdict) == (True, "old.json", "held")
    gate = bench(artifact, baseline=times(1e8), max_regression=0.5, **arguments).baseline
    assert gate is not None
    assert (gate.passed, gate.rows[0].verdict) == (False, "regressed")
    only_dense = first.replaced(rows=first.rows[:1])
    assert refusal(bench, artifact, baseline=only_dense).code == "baseline-empty"


def test_the_dense_backbone_has_the_precision_of_its_model(files: dict[str, Path], tmp_path: Path) -> None:
    recipe = tmp_path / "few.toml"
    recipe.write_text('[data]\nsource = "digits"\nsamples = 8\n')
    model = files["elide.onnx"]
    int8 = quantize(model, tmp_path / "int8.onnx", recipe=recipe, samples=4, batches=1, **ONCE)
    place = Place(tmp_path / "twins", 1, silent)
    place.folder.mkdir()
    groups = open_groups([open_artifact(model), int8], place)
    assert [(group.dense.file.precision, len(group.others)) for group in groups] == [("fp32", 1), ("int8", 1)]
    for group in groups:
        assert isinstance(group.dense.file, OnnxFile)
        graph = read_onnx(group.dense.file.path)
        assert is_quantized(graph) == (group.dense.file.precision == "int8")
        kinds = quantizable(graph.graph)
        assert len(kinds) > 10
    quantized = [node for node in graph.graph if node.name in kinds and is_fed_by(node, "DequantizeLinear")]
    recipe_kinds = int8.manifest.calibration.recipe.quantize.kinds if int8.manifest.calibration else ()
    assert {kinds[str(node.name)] for node in quantized} == set(recipe_kinds) & set(kinds.values())
    rows = bench([model, int8], batches=1, **ONCE).rows
    assert [(row.precision, row.dense) for row in rows] == [
        *(("fp32", True), ("fp32", False), ("int8", True), ("int8", False))
    ]
    assert all(row.efficiency is not None for row in rows)


def test_the_dense_backbone_was_optimized_as_its_model_was(files: dict[str, Path], tmp_path: Path) -> None:
    source = open_artifact(files["elide.onnx"])
    made = [
        optimize(source, tmp_path / f"{target}.onnx", target=target) for target in ("onnxruntime", "openvino", "any")
    ]
    small = optimize(source, tmp_path / "w8.onnx", target="onnxruntime", weights="int8")
    (tmp_path / "twins").mkdir()
    groups = open_groups([source, *made, small], Place(tmp_path / "twins", 1, silent))
    assert [[other.name for other in group.others] for group in groups] == [
        ["elide.onnx"], ["onnxruntime.onnx"], ["openvino.onnx"], ["any.onnx"], ["w8.onnx"]
    ]  # fmt: skip
    fused = {"onnxruntime.onnx", "w8.onnx"}
    for group in groups:
        assert not isinstance(group.dense.file, (CheckpointFile, EngineFile))
        assert group.dense.file.backend == ("openvino" if group.others[0].name == "openvino.onnx" else "onnxruntime")
        operators = {node.op_type for node in read_onnx(group.dense.file.path).graph}
        assert ("Attention" in operators) == (group.others[0].name in fused)
        assert ("MatMulNBits" in operators) == (group.others[0].name == "w8.onnx")
    rows = bench([made[1], small], batches=(1,), **ONCE).rows
    assert [(row.backend, row.precision, row.dense) for row in rows] == [
        ("openvino", "fp32", True), ("openvino", "fp32", False), ("onnxruntime", "int8", True),
        ("onnxruntime", "int8", False),
    ]  # fmt: skip
    assert all(row.efficiency is not None and row.efficiency > 0 for row in rows)


def is_fed_by(node: ir.Node, operator: str) -> bool:
    producers = [value.producer() for value in node.inputs if value is not None]
    return any(producer is not None and producer.op_type == operator for producer in producers)


@pytest.mark.parametrize(("precision", "kind"), [("fp16", ir.DataType.FLOAT16), ("bf16", ir.DataType.BFLOAT16)])
def test_a_half_precision_file_has_a_half_precision_twin(
    files: dict[str, Path], tmp_path: Path, precision: str, kind: ir.DataType
) -> None:
    artifact = open_artifact(files["elide.onnx"])
    half = Artifact(artifact.path, artifact.manifest.replaced(precision=precision))
    file = OnnxFile(path=artifact.path, threads=1, precision=precision)
    twin = dense_twin(half, file, Place(tmp_path, 1, silent))
    assert isinstance(twin.file, OnnxFile)
    products = [node for node in read_onnx(twin.file.path).graph if node.op_type == "MatMul"]
    assert products
    assert all(node.outputs[0].dtype == kind for node in products)


@pytest.mark.slow
def test_a_checkpoint_that_was_never_in_a_file_has_a_name() -> None:
    model = small_tofe()
    checkpoint = Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit))
    rows = bench([checkpoint, checkpoint], batches=1, **ONCE).rows
    assert [row.name for row in rows if not row.dense] == ["checkpoint 1", "checkpoint 2"]
    unknown = Checkpoint(model, (), Preprocessing.of_backbone(model.vit))
    error = refusal(bench, unknown)
    assert "`keep`" in error.next_step


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            {"batches": (0,)},
            {"batches": (1, 70_000)},
            {"batches": ()},
            {"rounds": 0},
            {"threads": 0},
            {"processes": 0},
        ),
        *({"max_regression": -0.1}, {"max_regression": float("nan")}),
    ],
)
def test_numbers_out_of_range(files: dict[str, Path], arguments: dict[str, Any]) -> None:
    error = refusal(bench, files["plugin.onnx"], **arguments)
    (name,) = arguments
    assert f"`{name}`" in error.message + error.next_step
    assert error.exit_code == 2


def test_models_that_cannot_be_timed(files: dict[str, Path], tmp_path: Path) -> None:
    assert refusal(bench, []).code == "no-model"
    assert refusal(bench, tmp_path / "m.engine", threads=2).code == "threads-for-engines"
    assert refusal(bench, tmp_path / "m.onnx").code == "no-file"
    (tmp_path / "m.onnx").write_bytes(files["plugin.onnx"].read_bytes())
    assert refusal(bench, [files["plugin.onnx"], tmp_path / "m.onnx"]).code == "manifest-missing"
