"""ONNX Runtime for arm64, run by QEMU on this machine (make arm64)."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from tofe_export.runners.base import Array

BUILD = Path(__file__).parents[2] / "build" / "arm64"
INSIDE = Path(__file__).with_name("inside_arm64.py")
PROCESSORS = ("cortex-a53", "cortex-a76", "neoverse-n1")
"""One without products of 8-bit numbers, of a phone, and of a server; names as QEMU has them."""


def require_arm64() -> None:
    if not (BUILD / "site" / "onnxruntime").is_dir():
        pytest.skip("ONNX Runtime for arm64 is not in build/arm64: make arm64")


def run_on_arm64(
    models: Mapping[str, bytes], feeds: Mapping[str, Mapping[str, Array]], folder: Path, processor: str
) -> dict[str, dict[str, Array]]:
    """The outputs of each model by name, from one process that begins on the emulated processor."""
    folder.mkdir()
    for name, content in models.items():
        (folder / f"{name}.onnx").write_bytes(content)
        np.savez(folder / f"{name}.in.npz", **feeds[name])
    root = BUILD / "root"
    command = [BUILD / "qemu-aarch64", "-cpu", processor, "-L", root, root / "usr/bin/python3.13", "-I", INSIDE]
    done = subprocess.run(
        [*map(str, command), str(BUILD / "site"), str(folder)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split()[-1] == "aarch64"
    found = {}
    for name in models:
        with np.load(folder / f"{name}.out.npz") as outputs:
            found[name] = dict(outputs)
    return found
