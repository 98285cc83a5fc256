"""tofe-export trt as its user types it, and every verb on the engine it makes."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.test_refusals import refused
from tofe_export.api.export import export
from tofe_export.engine.backend import gpu_present


@pytest.fixture(scope="module")
def exported(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export(checkpoint, folder / "model.onnx")
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> Path:
    """Where the user stands: model.onnx and its manifest."""
    shutil.copytree(exported, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_the_two_commands_of_the_readme(folder: Path, run: Run) -> None:
    done = run("trt", "--fp16", "--backend", "rtx")
    assert done.returncode == 0, done.stderr
    assert "Wrote model.engine and model.engine.json" in done.stdout
    assert "tofe::TokenPartition x 3: function body (TensorRT-RTX cannot host plugins)" in done.stdout
    assert "MATRIX_MULTIPLY" in done.stdout
    shown = run("inspect", "model.engine")
    assert shown.returncode == 0, shown.stderr
    assert "layers known from" in shown.stdout
    document = json.loads(run("inspect", "model.engine", "--json", "-").stdout)
    assert document["manifest"]["precision"] == "fp16"


@pytest.mark.parametrize("verb", [["bench"], ["verify", "--against", "{checkpoint}"]])
def test_running_an_engine_without_a_gpu_is_exit_3(folder: Path, checkpoint: Path, run: Run, verb: list[str]) -> None:
    if gpu_present():
        pytest.skip("this machine has a GPU")
    assert run("trt", "--backend", "rtx").returncode == 0
    done = run(*(part.format(checkpoint=checkpoint) for part in verb), "model.engine")
    assert done.returncode == 3
    assert "PyTorch finds none here" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("Next:")


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--fp16", "--bf16"], 2, "both given"),
        (["--batch", "8:4:2"], 2, "do not rise from 1"),
        (["--batch", "many"], 2, "is not MIN:OPT:MAX"),
        (["--backend", "cuda"], 2, "no backend 'cuda'"),
        (["--plugin", "maybe"], 2, "--plugin maybe is not known"),
        (["--plugin", "on"], 2, "TensorRT-RTX cannot host plugins"),
        (["--version-compatible"], 2, "--version-compatible and --hardware-compat are for TensorRT"),
        (["--hardware-compat", "ampere_plus"], 2, "Next: For RTX name the GPUs: --compute-capability 86,120"),
        (["--compute-capability", "90"], 2, "has no compute capability 90"),
        (["--compute-capability", "86,"], 2, "'86,' has an empty part"),
        (["--compute-capability", ","], 2, "',' has an empty part"),
        (["--timing-cache", "cache"], 2, "has no timing cache"),
        (["-o", "model.onnx"], 2, "model.onnx would be overwritten"),
        (["-o", "engine.onnx"], 2, "with the name of an ONNX file"),
        (["missing.onnx"], 2, "missing.onnx does not exist"),
        (["ckpt.pth"], 2, "First type: tofe-export onnx ckpt.pth"),
        (["--workspace", "0"], 2, "workspace"),
    ],
)
def test_refusals(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(folder)
    backend = [] if "--backend" in options else ["--backend", "rtx"]
    found, text = refused(["trt", *options, *backend], monkeypatch, capsys)
    assert words in text
    assert found == code
    assert not (folder / "model.engine").exists()


def test_without_any_tensorrt_the_package_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    from tofe_export.engine import backend

    monkeypatch.setattr(backend, "installed", lambda name: False)
    code, text = refused(["trt"], monkeypatch, capsys)
    assert code == 3
    assert "pip install 'tofe-export[rtx]'" in text


def test_a_file_that_is_no_onnx(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (folder / "text.onnx").write_text("hello")
    code, text = refused(["trt", "text.onnx"], monkeypatch, capsys)
    assert code == 2
    assert "text.onnx.json does not exist" in text
    assert "tensorrt" not in sys.modules
