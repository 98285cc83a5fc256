"""An engine that does not show its stages gets a twin that does; it is built here, and runs where there is a GPU."""

import json
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from tofe_export.artifacts.manifest import read_manifest
from tofe_export.checkpoints.checkpoint import load
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.precision.half import to_half
from tofe_export.workflows.build_engine import build_from_onnx
from tofe_export.workflows.open_deployed import batch_sizes, build_twin, tapped_graph
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
    graph = tapped_graph(engine, manifest, load(checkpoint))
    assert graph is not None
    twin = build_twin(graph, manifest, silent)
    assert {output.split()[0].rstrip(":") for output in map(str, twin.network.outputs)} >= TAPS
    assert not TAPS & set(map(str, manifest["network"]["outputs"]))


def test_a_quantized_engine_without_its_file_has_no_twin(engine: Path, checkpoint: Path) -> None:
    manifest = read_manifest(engine) | {"precision": "int8"}
    assert tapped_graph(engine, manifest, load(checkpoint)) is None, "the file beside it is not quantized"
    (engine.parent / "model.onnx").unlink()
    assert tapped_graph(engine, manifest, load(checkpoint)) is None


def test_another_file_of_the_same_name_is_not_taken(engine: Path, checkpoint: Path) -> None:
    model = ir.load(engine.parent / "model.onnx")
    to_half(model, "fp16")
    ir.save(model, engine.parent / "model.onnx")
    graph = tapped_graph(engine, read_manifest(engine), load(checkpoint))
    assert graph is not None
    assert not any(node.op_type == "Cast" for node in graph.graph if "fp16" in (node.name or "")), "a new export"


def test_batch_sizes_are_the_profile_s(engine: Path) -> None:
    manifest = read_manifest(engine)
    assert batch_sizes(manifest) == [1, 3]
    for profile, sizes in ((BatchProfile(4, 8, 16), [4, 6]), (BatchProfile(8, 8, 8), [8])):
        options = BuildOptions(batch=profile).to_dict()
        assert batch_sizes({**manifest, "options": options}) == sizes


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
