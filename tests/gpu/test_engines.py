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
    if built.returncode == 3:
        pytest.skip(built.stderr)
    assert built.returncode == 0, built.stderr
    verified = run("verify", "model.engine", "--against", checkpoint, "--samples", 16, "--json", "verify.json")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert json.loads((tmp_path / "verify.json").read_text())["passed"]
    timed = run("bench", "model.engine", "--batch", "1,8", "--rounds", 3)
    assert timed.returncode == 0, timed.stderr
    shown = json.loads(run("inspect", "model.engine", "--json", "-").stdout)
    assert shown["from"] == "engine"
