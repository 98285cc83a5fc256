"""An engine that does not show its stages gets a twin that does; it is built here, and runs where there is a GPU."""

import json
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from tofe_export.api.build import build
from tofe_export.api.verify import verify
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.artifacts.deployed import UNSEEN, build_twin, built_from, compared_batch, tried_batches
from tofe_export.artifacts.manifests import read_manifest
from tofe_export.checkpoints.checkpoint import load
from tofe_export.documents.manifest import EngineManifest
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.graph.modules import module_values
from tofe_export.progress import silent

TAPS = {f"stage{stage}.{what}" for stage in range(2) for what in ("scores", "perm", "tokens")}


@pytest.fixture(scope="module")
def built(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("twin")
    for suffix in ("", ".json"):
        shutil.copy(f"{models['plugin']}{suffix}", folder / f"model.onnx{suffix}")
    return build(folder / "model.onnx", precision="fp16", backend="rtx").path


@pytest.fixture
def engine(built: Path, tmp_path: Path) -> Artifact:
    """A copy to spoil, beside the ONNX file that it was built from."""
    assert built.name == "model.engine"
    shutil.copytree(built.parent, tmp_path, dirs_exist_ok=True)
    return open_artifact(tmp_path / built.name)


def engine_manifest(engine: Artifact) -> EngineManifest:
    assert isinstance(engine.manifest, EngineManifest)
    return engine.manifest


@pytest.mark.parametrize("beside", [True, False], ids=["from the file", "from the checkpoint"])
def test_the_twin_shows_every_stage(engine: Artifact, checkpoint: Path, beside: bool) -> None:
    if not beside:
        engine.path.with_name("model.onnx").unlink()
    manifest = engine_manifest(engine)
    graph = built_from(engine, manifest, load(checkpoint))
    assert graph is not None
    assert build_twin(graph, manifest, silent).network.outputs.keys() >= TAPS
    assert not TAPS & manifest.network.outputs.keys()


def test_the_twin_can_show_every_module(engine: Artifact, checkpoint: Path) -> None:
    manifest = engine_manifest(engine)
    graph = built_from(engine, manifest, load(checkpoint))
    assert graph is not None
    modules = module_values(graph)
    assert len(modules) > 30
    values = {str(value.name): value for name, value in modules.items() if not name.endswith(UNSEEN)}
    assert len(values) > 25
    shown = {str(output.name) for output in graph.graph.outputs}
    graph.graph.outputs.extend(value for name, value in values.items() if name not in shown)
    before = ir.to_proto(graph).SerializeToString(deterministic=True)
    assert build_twin(graph, manifest, silent).network.outputs.keys() >= values.keys() | TAPS
    assert ir.to_proto(graph).SerializeToString(deterministic=True) == before, "it may be opened again"


def test_a_quantized_engine_without_its_file_has_no_twin(engine: Artifact, checkpoint: Path) -> None:
    manifest = engine_manifest(engine).replaced(precision="int8")
    assert built_from(engine, manifest, load(checkpoint)) is None, "the file beside it is not quantized"
    engine.path.with_name("model.onnx").unlink()
    assert built_from(engine, manifest, load(checkpoint)) is None


def test_another_file_of_the_same_name_is_not_taken(engine: Artifact, checkpoint: Path) -> None:
    source = engine.path.with_name("model.onnx")
    model = ir.load(source)
    model.graph.name = "another"
    ir.save(model, source)
    graph = built_from(engine, engine_manifest(engine), load(checkpoint))
    assert graph is not None
    assert graph.graph.name != "another"


def test_batch_sizes_are_those_of_the_profile(engine: Artifact, models: dict[str, Path]) -> None:
    manifest = engine_manifest(engine)
    assert tried_batches(manifest) == [1, 8, 64]
    assert tried_batches(read_manifest(models["plugin"])) == [1, 3]
    for profile, sizes, at_a_time in (
        (BatchProfile(4, 8, 16), [4, 8, 16], 8),
        (BatchProfile(2, 2, 2), [2], 2),
        (BatchProfile(32, 32, 32), [32], 32),
    ):
        other = manifest.replaced(options=BuildOptions(batch=profile).document())
        assert tried_batches(other) == sizes
        assert compared_batch(other) == at_a_time


def test_an_engine_is_not_checked_without_a_gpu_and_never_passes(engine: Artifact, checkpoint: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU: tests/gpu runs the engine")
    result = verify([engine, engine.path.with_name("model.onnx")], against=checkpoint, samples=16)
    assert result.exit_code == 3
    not_run, passed = result.artifacts
    assert not_run.passed is None
    assert not_run.error is not None
    assert not_run.error.code == "gpu-missing"
    assert passed.passed is True
    assert result.passed is not True
    json.loads(result.to_json())
