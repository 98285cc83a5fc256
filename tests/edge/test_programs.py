"""Programs in the runtimes of phones, on this machine; each skips where its extra is not installed (`make phones`)."""

import importlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tofe_export as tofe
from tests.edge.operators import Both, hostile_scores
from tests.helpers import SMALL_KEEP, refusal, save_noise, save_small
from tofe_export.api.program import SUFFIXES, Program, ProgramRuntime
from tofe_export.artifacts.artifact import open_artifact
from tofe_export.documents.manifest import ProgramManifest
from tofe_export.edge.tracing import quiet
from tofe_export.model.operators import scatter_rearrange, token_partition

_MODULES = {"executorch": ("executorch.runtime",), "litert": ("litert_torch", "ai_edge_litert.interpreter")}
CLOSE = 2e-5
"""Largest difference in any output; those of the small network are up to about 10."""


@pytest.fixture(scope="module", params=list(_MODULES))
def runtime(request: pytest.FixtureRequest) -> ProgramRuntime:
    for module in _MODULES[request.param]:
        try:
            with quiet():
                importlib.import_module(module)
        except ImportError:
            pytest.skip(f"{request.param} is an extra, which is not installed")
    return request.param


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth and model.onnx, whose tokens are put back after each stage."""
    folder = tmp_path_factory.mktemp("phones")
    save_small(folder / "ckpt.pth")
    tofe.export(folder / "ckpt.pth", folder / "model.onnx", keep=SMALL_KEEP)
    return folder


@pytest.fixture(scope="module")
def made(folder: Path, runtime: ProgramRuntime) -> Program:
    return tofe.program(folder / "model.onnx", checkpoint=folder / "ckpt.pth", runtime=runtime, taps=True)


def test_agrees_with_pytorch_stage_by_stage(made: Program, folder: Path, runtime: ProgramRuntime) -> None:
    assert made.path == folder / f"model{SUFFIXES[runtime]}"
    assert made.parity.passed is True
    [verified] = tofe.verify(made.path, against=folder / "ckpt.pth", samples=12).artifacts
    assert verified.passed is True
    assert verified.backend == runtime
    assert [stage.index for stage in verified.stages] == [0, 1, 2]
    assert verified.logits is not None
    assert verified.logits.max_abs is not None
    assert verified.logits.max_abs < CLOSE
    described = json.loads(made.path.with_name(f"{made.path.name}.json").read_text())
    assert described["source"]["file"] == "model.onnx"
    assert described["keep"] == list(SMALL_KEEP)


def test_keeps_the_order_of_equal_scores(runtime: ProgramRuntime, tmp_path: Path) -> None:
    scores = hostile_scores()
    network, tokens = Both(keep=6), torch.arange(17.0 * 4).view(1, 17, 4)
    run = _converted(network, (tokens, scores[:1]), runtime, tmp_path)
    for row in scores:
        found = run(tokens.numpy(), row[None].numpy())
        kept, frozen, perm = token_partition(tokens, row[None], 6, 1)
        assert np.array_equal(found[2], perm.numpy()), row
        assert np.array_equal(found[0], kept.numpy()), row
        assert np.array_equal(found[1], frozen.numpy()), row
        assert np.array_equal(found[3], scatter_rearrange(kept, frozen, perm, 1).numpy()), row


def _converted(network, example, runtime, folder):  # type: ignore[no-untyped-def]
    if runtime == "executorch":
        with quiet():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower
            from executorch.runtime import Runtime

            program = torch.export.export(network, example)
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
            (folder / "both.pte").write_bytes(lowered.to_executorch().buffer)
            loaded = Runtime.get().load_program(folder / "both.pte")
            method = loaded.load_method("forward")
        # The program must outlive its method.
        return lambda *given, kept=loaded: [one.numpy() for one in method.execute([*map(torch.from_numpy, given)])]
    with quiet():
        import litert_torch
        from ai_edge_litert.interpreter import Interpreter

        litert_torch.convert(network, example).export(str(folder / "both.tflite"))
        interpreter = Interpreter(str(folder / "both.tflite"))
        interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner()

    def run(*given):  # type: ignore[no-untyped-def]
        values = signature(**{f"args_{place}": value for place, value in enumerate(given)})
        return [values[f"output_{place}"] for place in range(len(values))]

    return run


def test_int8_is_smaller_and_is_judged_as_int8(folder: Path, made: Program, runtime: ProgramRuntime) -> None:
    path = folder / f"small{SUFFIXES[runtime]}"
    small = tofe.program(
        folder / "model.onnx", path, checkpoint=folder / "ckpt.pth", runtime=runtime, int8=True, taps=True
    )
    assert (small.manifest.precision, small.manifest.around) == ("int8", "fp32")
    assert path.stat().st_size < made.path.stat().st_size
    [verified] = tofe.verify(path, against=folder / "ckpt.pth", samples=12).artifacts
    assert verified.precision == "int8"
    assert verified.logits_same_selection is not None
    assert verified.logits_same_selection.max_abs is not None
    assert CLOSE < verified.logits_same_selection.max_abs < verified.tolerances["logits_max_abs"]


def test_predicts_as_the_onnx_file_does(folder: Path, made: Program, tmp_path: Path) -> None:
    images, picture = tmp_path / "images", tmp_path / "tokens.png"
    images.mkdir()
    for number in range(3):
        save_noise(images / f"{number}.png", 40 + number, 50)
    ours = tofe.predict(made.path, images, token_map=picture)
    theirs = tofe.predict(folder / "model.onnx", images)
    assert picture.stat().st_size > 1000
    for one, other in zip(ours, theirs, strict=True):
        assert [c.index for c in one.classes] == [c.index for c in other.classes]
        found, wanted = ([c.probability for c in prediction.classes] for prediction in (one, other))
        np.testing.assert_allclose(found, wanted, atol=CLOSE)


def test_features_in_order_of_rank(folder: Path, runtime: ProgramRuntime, tmp_path: Path) -> None:
    """The other form, with two outputs."""
    tofe.export(folder / "ckpt.pth", tmp_path / "both.onnx", keep=SMALL_KEEP, outputs=("features", "logits"))
    made = tofe.program(tmp_path / "both.onnx", checkpoint=folder / "ckpt.pth", runtime=runtime)
    assert made.manifest.rearrange == "elide"
    assert made.manifest.returns == ("features", "logits")
    assert tofe.verify(made.path, against=folder / "ckpt.pth", samples=4).artifacts[0].passed is True


def test_a_program_of_other_weights_is_found(folder: Path, made: Program, runtime: ProgramRuntime) -> None:
    """By the manifest, and where that lies, by the outputs."""
    save_small(folder / "other.pth", seed=1)
    [verified] = tofe.verify(made.path, against=folder / "other.pth", samples=4).artifacts
    assert verified.passed is False
    assert any(check.name == "weights" and check.passed is False for check in verified.checks)
    forged = folder / f"forged{SUFFIXES[runtime]}"
    shutil.copy(made.path, forged)
    other = tofe.load(folder / "other.pth")
    told = made.manifest.replaced(weights_sha256=other.weights_sha256, sha256=made.manifest.sha256)
    forged.with_name(f"{forged.name}.json").write_text(told.to_json())
    [verified] = tofe.verify(forged, against=folder / "other.pth", samples=4).artifacts
    assert verified.passed is False
    assert verified.failures


def test_a_damaged_program_is_refused_in_words(folder: Path, made: Program, runtime: ProgramRuntime) -> None:
    from tofe_export.artifacts.artifact import open_program

    broken = folder / f"broken{SUFFIXES[runtime]}"
    broken.write_bytes(made.path.read_bytes()[:4000])
    assert "cannot load" in refusal(open_program, broken, made.manifest).message
    broken.write_bytes(b"")
    assert "cannot load" in refusal(open_program, broken, made.manifest).message


def test_inspect_says_what_it_returns(made: Program, runtime: ProgramRuntime) -> None:
    found = tofe.inspect(made.path)
    assert found.kind == "program"
    assert isinstance(open_artifact(made.path).manifest, ProgramManifest)
    assert found.manifest.runtime == runtime
    assert found.manifest.returns[0] == "logits"
    assert found.manifest.returns[-1] == "stage2.tokens"
