"""Engines that run: every backend that works here, against PyTorch, through the program's own verbs."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tofe_export.engine.backend import installed


@pytest.mark.parametrize("backend", ["rtx", "tensorrt"])
@pytest.mark.parametrize("precision", ["--fp16", None])
def test_build_verify_bench(checkpoint: Path, tmp_path: Path, run: Run, backend: str, precision: str | None) -> None:
    if not installed(backend):
        pytest.skip(f"the backend {backend} is not installed")
    assert run("onnx", checkpoint).returncode == 0
    flags = [] if precision is None else [precision]
    built = run("trt", *flags, "--backend", backend, "--taps", "--batch", "1:2:8")
    if "not run:" in built.stdout:
        pytest.skip(built.stdout)
    assert built.returncode == 0, built.stderr
    verified = run("verify", "model.engine", "--against", checkpoint, "--samples", 16, "--json", "verify.json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads((tmp_path / "verify.json").read_text())["passed"]
    timed = run("bench", "model.engine", "--batch", "1,8", "--rounds", 3)
    assert timed.returncode == 0, timed.stderr
    shown = json.loads(run("inspect", "model.engine", "--json", "-").stdout)
    assert shown["from"] == "engine"


@pytest.mark.parametrize("kind", ["--int8", "--fp8"])
def test_a_quantized_engine(checkpoint: Path, tmp_path: Path, run: Run, kind: str) -> None:
    """Built from a quantized file for RTX, and as far from PyTorch as the limits of its precision allow."""
    if not installed("rtx"):
        pytest.skip("the backend rtx is not installed")
    assert run("onnx", checkpoint).returncode == 0
    recipe = [] if kind == "--int8" else [kind]
    quantized = run("quantize", "model.onnx", "--data", "digits", "--samples", 32, *recipe, "-o", "q.onnx")
    assert quantized.returncode == 0, quantized.stderr
    built = run("trt", "q.onnx", kind, "--backend", "rtx", "-o", "q.engine")
    if "not run:" in built.stdout:
        pytest.skip(built.stdout)
    assert built.returncode == 0, built.stdout + built.stderr
    verified = run("verify", "q.engine", "--against", checkpoint, "--samples", 16, "--json", "verify.json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
