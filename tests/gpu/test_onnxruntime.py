"""ONNX Runtime on the GPU against PyTorch, through the program's own verbs."""

import json
from pathlib import Path

import onnxruntime as ort
import pytest

from tests.cli.conftest import Run


def test_verify_and_bench(checkpoint: Path, tmp_path: Path, run: Run) -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("the installed ONNX Runtime has no CUDA provider (onnxruntime-gpu has)")
    assert run("onnx", checkpoint).returncode == 0
    verified = run(
        "verify", "model.onnx", "--against", checkpoint, "--samples", 16, "--provider", "cuda", "--json", "verify.json"
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    found = json.loads((tmp_path / "verify.json").read_text())
    assert found["passed"]
    timed = run("bench", "model.onnx", "--batch", "1,8", "--rounds", 3, "--provider", "cuda", "--json", "bench.json")
    assert timed.returncode == 0, timed.stderr
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    assert {row["backend"] for row in rows} == {"onnxruntime-cuda"}
