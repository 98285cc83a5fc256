"""A file rewritten for a runtime agrees with its source there, and says what it is."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import TWO_STAGES, refused_as, small_tofe
from tofe_export.api.bench import bench
from tofe_export.api.build import build
from tofe_export.api.export import export
from tofe_export.api.inspect import inspect
from tofe_export.api.optimize import optimize
from tofe_export.api.predict import predict
from tofe_export.api.quantize import quantize
from tofe_export.api.verify import verify
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint, load, save
from tofe_export.data.digits import Digits
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.fields import Target
from tofe_export.documents.machine import processors
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.documents.onnx_options import SessionSettings
from tofe_export.errors import CheckFailedError, MissingError
from tofe_export.graph import targets
from tofe_export.graph.stored import add_initializer
from tofe_export.runners.openvino_runner import has_bf16

TARGETS: tuple[Target, ...] = ("any", "onnxruntime", "openvino")
QUICK: dict[str, Any] = {"rounds": 1, "processes": 1, "threads": 1}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    model = small_tofe(num_classes=10, **TWO_STAGES)
    path = tmp_path_factory.mktemp("optimize") / "ckpt.pth"
    save(path, Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit), {}, "digits"))
    return load(path)


@pytest.fixture(scope="module")
def source(checkpoint: Checkpoint) -> Artifact:
    assert checkpoint.path is not None
    return export(checkpoint, checkpoint.path.parent / "model.onnx")


@pytest.fixture(scope="module")
def optimized(source: Artifact) -> Mapping[Target, Artifact]:
    return {target: optimize(source, target=target) for target in TARGETS}


def test_each_form_passes_verify_with_every_stage_in_view(
    optimized: Mapping[Target, Artifact], checkpoint: Checkpoint
) -> None:
    result = verify(list(optimized.values()), against=checkpoint, samples=16)
    assert result.passed, result.failures
    for one in result.artifacts:
        assert [stage.index for stage in one.stages] == [0, 1]
        assert all(stage.selection_overlap == 1.0 for stage in one.stages)


def test_the_manifest_says_what_was_rewritten(optimized: Mapping[Target, Artifact], source: Artifact) -> None:
    passes: dict[Target, dict[str, int]] = {"any": {"inline": 3}, "onnxruntime": {"attention": 1, "ties": 2}}
    passes["openvino"] = passes["any"]
    for target, artifact in optimized.items():
        manifest = artifact.manifest
        assert isinstance(manifest, OnnxManifest)
        assert artifact.path.name == f"model.{target}.onnx"
        assert manifest.options.target == target
        assert manifest.options.passes == passes[target]
        assert manifest.source.sha256 == source.manifest.sha256
        assert manifest.origin == source.manifest.origin
        assert manifest.keep == source.manifest.keep
        assert bool(manifest.operators) == (target == "onnxruntime")
        assert json.loads(inspect(artifact).to_json())["manifest"]["options"]["target"] == target


def test_a_wrong_keep_count_in_the_graph_is_found(
    optimized: Mapping[Target, Artifact], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    path = optimized["any"].path
    manifest = json.loads(path.with_name(f"{path.name}.json").read_text())
    manifest["keep"] = [7, 5]
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    (tmp_path / "model.onnx.json").write_text(json.dumps(manifest))
    result = verify(tmp_path / "model.onnx", against=checkpoint, samples=8)
    assert not result.passed
    assert "Stage 0 of the graph keeps 8 tokens; its manifest says 7." in " ".join(result.failures)


def test_a_picture_gets_the_same_class(optimized: Mapping[Target, Artifact], source: Artifact, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "digit.png"
    Image.fromarray(Digits("val").canvas(3).pixels).save(picture)
    [expected] = predict(source, picture, top=1)
    for artifact in optimized.values():
        [found] = predict(artifact, picture, top=1)
        assert found.classes[0].index == expected.classes[0].index
        assert found.classes[0].probability == pytest.approx(expected.classes[0].probability, abs=1e-5)


def test_inline_at_once_is_the_same_file(
    optimized: Mapping[Target, Artifact], checkpoint: Checkpoint, tmp_path: Path
) -> None:
    inlined = export(checkpoint, tmp_path / "model.onnx", inline=True)
    assert inlined.path.read_bytes() == optimized["any"].path.read_bytes()
    assert inlined.manifest.options.target == "any"
    with refused_as("inlined-already"):
        optimize(inlined, tmp_path / "again.onnx", target="onnxruntime")


def test_an_optimized_file_is_the_last_one(optimized: Mapping[Target, Artifact], tmp_path: Path) -> None:
    for artifact in optimized.values():
        with refused_as("optimized-already"):
            optimize(artifact, tmp_path / "again.onnx", target="any")
        with refused_as("optimized-already"):
            quantize(artifact, tmp_path / "int8.onnx")
        with refused_as("optimized-already"):
            build(artifact, tmp_path / "model.engine")
    assert not list(tmp_path.iterdir())


def test_a_rewrite_that_changes_the_network_is_not_written(
    source: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(model: ir.Model) -> int:
        logits = model.graph.outputs[0]
        bias = add_initializer(model.graph, "wrong", np.array([0, 0, 0.01, 0, 0, 0, 0, 0, 0, 0], np.float32))
        producer = logits.producer()
        assert producer is not None
        node = ir.node("Add", [logits, bias], name="wrong/Add")
        model.graph.insert_after(producer, node)
        node.outputs[0].shape, node.outputs[0].type = logits.shape, logits.type
        logits.name, node.outputs[0].name = "inner", "logits"
        model.graph.outputs[0] = node.outputs[0]
        return 1

    monkeypatch.setitem(targets._PASSES, "any", {"spoil": spoil})
    with refused_as("parity", CheckFailedError):
        optimize(source, tmp_path / "wrong.onnx", target="any")
    assert not list(tmp_path.iterdir())


def test_a_provider_is_not_for_openvino(optimized: Mapping[Target, Artifact], checkpoint: Checkpoint) -> None:
    with refused_as("provider-without-onnx"):
        verify(optimized["openvino"], against=checkpoint, provider="cuda")
    with refused_as("provider-without-onnx"):
        bench(optimized["openvino"], provider="cuda", **QUICK)


def test_session_parameters_have_a_dense_backbone_of_their_own(
    optimized: Mapping[Target, Artifact], tmp_path: Path
) -> None:
    plain, tuned = optimized["onnxruntime"], tmp_path / "tuned.onnx"
    assert isinstance(plain.manifest, OnnxManifest)
    tuned.write_bytes(plain.path.read_bytes())
    session = SessionSettings(threads=1000, spinning=False)
    options = plain.manifest.options.replaced(session=session)
    Path(f"{tuned}.json").write_text(plain.manifest.replaced(options=options).to_json())
    rows = bench([plain, tuned], batches=1, **QUICK).rows
    assert [row.dense for row in rows] == [True, False, True, False]
    opened = open_artifact(tuned).open()
    threads = opened._session.get_session_options().intra_op_num_threads  # type: ignore[attr-defined]
    assert threads == processors()


def test_arguments_that_do_not_fit_are_refused(source: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "out.onnx"
    with refused_as("tensorrt-needs-no-other-file"):
        optimize(source, path, target="tensorrt")
    with refused_as("target-unknown"):
        optimize(source, path, target="tflite")  # type: ignore[arg-type]
    with refused_as("only-openvino-bf16"):
        optimize(source, path, target="onnxruntime", precision="bf16")
    with refused_as("weights-for-onnxruntime"):
        optimize(source, path, target="openvino", weights="int8")
    with refused_as("unknown-value"):
        optimize(source, path, target="openvino", precision="fp16")  # type: ignore[arg-type]
    with refused_as("unknown-value"):
        optimize(source, path, target="onnxruntime", weights="int4")  # type: ignore[arg-type]
    if not has_bf16():
        with refused_as("no-bf16", MissingError):
            optimize(source, path, target="openvino", precision="bf16")
    assert not path.exists()


def test_weights_in_8_bits_spare_the_selectors(source: Artifact, checkpoint: Checkpoint, tmp_path: Path) -> None:
    before = logging.getLogger().level
    small = optimize(source, tmp_path / "w8.onnx", target="onnxruntime", weights="int8")
    rounded = [str(node.name) for node in small.graph.graph if node.op_type == "MatMulNBits"]
    assert len(rounded) == small.manifest.options.passes["weights"] > 4
    assert not [name for name in rounded if ".selector" in name]
    assert small.path.stat().st_size < source.path.stat().st_size
    assert logging.getLogger().level == before  # the quantizer's import would let every library speak
    assert small.manifest.precision == "int8"
    result = verify(small, against=checkpoint, samples=64)
    assert result.passed, result.failures
    assert result.artifacts[0].logits is not None
    assert result.artifacts[0].logits.max_abs > 1e-5
    with refused_as("already-quantized"):
        optimize(
            Artifact(source.path, source.manifest.replaced(precision="int8")),
            tmp_path / "again.onnx",
            target="onnxruntime",
            weights="int8",
        )


def test_an_int8_file_runs_in_openvino(source: Artifact, checkpoint: Checkpoint, tmp_path: Path) -> None:
    int8 = quantize(source, tmp_path / "int8.onnx", samples=8, batches=(1,), rounds=1, processes=1, threads=1)
    there, anywhere = (optimize(int8, tmp_path / f"{name}.onnx", target=name) for name in ("openvino", "any"))
    assert there.manifest.precision == anywhere.manifest.precision == "int8"
    assert there.agreement.passed
    assert there.agreement.logits is not None
    assert there.agreement.logits.max_abs > 0  # other kernels round otherwise, by less where both have VNNI
    first, second = verify([int8, anywhere], against=checkpoint, samples=16).artifacts
    assert first.logits == second.logits
