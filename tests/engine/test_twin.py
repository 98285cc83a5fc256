"""An engine that does not show its stages gets a twin that does; it is built here, and runs where there is a GPU."""

import json
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from tofe_export.artifacts.manifest import read_manifest
from tofe_export.checkpoints.checkpoint import load
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.graph.modules import module_values
from tofe_export.workflows.build_engine import build_from_onnx
from tofe_export.workflows.open_deployed import UNSEEN, build_twin, built_from, compared_batch, tried_batches
from tofe_export.workflows.progress import silent
from tofe_export.workflows.verify_model import verify_models

TAPS = {f"stage{stage}.{what}" for stage in range(3) for what in ("scores", "perm", "tokens")}


@pytest.fixture
def engine(models: dict[str, Path], tmp_path: Path) -> Path:
    for suffix in ("", ".json"):
        shutil.copy(f"{models['plugin']}{suffix}", tmp_path / f"model.onnx{suffix}")
    target = tmp_path / "model.engine"
    build_from_onnx(tmp_path / "model.onnx", target, BuildOptions(precision="fp16", backend="rtx"))
    return target


@pytest.mark.parametrize("beside", [True, False], ids=["from the file", "from the checkpoint"])
def test_the_twin_shows_every_stage(engine: Path, checkpoint: Path, beside: bool) -> None:
    if not beside:
        (engine.parent / "model.onnx").unlink()
    manifest = read_manifest(engine)
    graph = built_from(engine, manifest, load(checkpoint))
    assert graph is not None
    twin = build_twin(graph, manifest, silent)
    assert {output.split()[0].rstrip(":") for output in map(str, twin.network.outputs)} >= TAPS
    assert not TAPS & set(map(str, manifest["network"]["outputs"]))


def test_the_twin_can_show_every_module(engine: Path, checkpoint: Path) -> None:
    manifest = read_manifest(engine)
    graph = built_from(engine, manifest, load(checkpoint))
    assert graph is not None
    modules = module_values(graph)
    assert len(modules) > 50
    values = {str(value.name): value for name, value in modules.items() if not name.endswith(UNSEEN)}
    assert len(values) > 40
    shown = {str(output.name) for output in graph.graph.outputs}
    graph.graph.outputs.extend(value for name, value in values.items() if name not in shown)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    twin = build_twin(graph, manifest, silent)
    assert {output.split()[0].rstrip(":") for output in map(str, twin.network.outputs)} >= values.keys() | TAPS
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before, "it may be opened again"


def test_a_quantized_engine_without_its_file_has_no_twin(engine: Path, checkpoint: Path) -> None:
    manifest = read_manifest(engine) | {"precision": "int8"}
    assert built_from(engine, manifest, load(checkpoint)) is None, "the file beside it is not quantized"
    (engine.parent / "model.onnx").unlink()
    assert built_from(engine, manifest, load(checkpoint)) is None


def test_another_file_of_the_same_name_is_not_taken(engine: Path, checkpoint: Path) -> None:
    model = ir.load(engine.parent / "model.onnx")
    model.graph.name = "another"
    ir.save(model, engine.parent / "model.onnx")
    graph = built_from(engine, read_manifest(engine), load(checkpoint))
    assert graph is not None
    assert graph.graph.name != "another"


def test_batch_sizes_are_the_profile_s(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert tried_batches(manifest) == [1, 8, 64]
    assert tried_batches({"kind": "onnx"}) == [1, 3]
    for profile, sizes, at_a_time in (
        (BatchProfile(4, 8, 16), [4, 8, 16], 8),
        (BatchProfile(2, 2, 2), [2], 2),
        (BatchProfile(32, 32, 32), [32], 32),
    ):
        other = {**manifest, "options": BuildOptions(batch=profile).to_dict()}
        assert tried_batches(other) == sizes
        assert compared_batch(other) == at_a_time


def test_an_engine_is_not_checked_without_a_gpu_and_never_passes(engine: Path, checkpoint: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu runs the engine")
    result = verify_models([engine, engine.parent / "model.onnx"], checkpoint)
    assert result.exit_code == 3
    document = result.document["artefacts"][0]
    assert document["passed"] is None
    assert "NVIDIA GPU" in document["error"]["message"]
    assert result.document["artefacts"][1]["passed"] is True
    assert result.document["passed"] is not True
    assert json.loads(json.dumps(result.document, allow_nan=False)) == result.document
