"""The plugin definitions against NVIDIA's own Python layer, and their launches through the emulated kernels."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tofe_plugins.kernels import SCATTER_REARRANGE, TOKEN_PARTITION, blocks

from tests.plugins.emulation.emulated_kernel import EmulatedKernel
from tofe_export.model.operators import token_partition


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    if importlib.util.find_spec("tensorrt") is None:
        pytest.skip("the package tensorrt is not installed, so nothing can be registered with it")
    script = Path(__file__).with_name("registration_script.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return document


def test_both_are_registered(found: dict[str, Any]) -> None:
    assert found["registered"] == ["ScatterRearrange", "TokenPartition"]


def test_outputs_and_launches(found: dict[str, Any]) -> None:
    partition, rearrange = found["partition"], found["rearrange"]
    assert partition["dtypes"] == ["DataType.HALF", "DataType.HALF", "DataType.INT32"]
    assert partition["shapes"] == [[5, 97, 384], [5, 100, 384], [5, 196]]
    assert rearrange["dtypes"] == ["DataType.BF16"]
    assert rearrange["shapes"] == [[5, 197, 384]]
    for launch, kernel in ((partition, TOKEN_PARTITION), (rearrange, SCATTER_REARRANGE)):
        assert launch["entry"] == kernel.entry
        assert launch["ptx"]
        assert launch["grid"] == [blocks(197), 5, 256]
        assert launch["scalars"] == [196, 96, 1, 768]
        assert len(launch["combinations"]) == 3, "float32, float16 and bfloat16"


def test_the_launch_that_tensorrt_gets_computes_the_operator(found: dict[str, Any], tmp_path: Path) -> None:
    scalars = dict(zip(TOKEN_PARTITION.scalars, found["partition"]["scalars"], strict=True))
    tokens, scores = torch.randint(-999, 999, (5, 197, 384)).half(), torch.randn(5, 196)
    shapes = {
        "kept": ((5, 97, 384), torch.float16),
        "frozen": ((5, 100, 384), torch.float16),
        "perm": ((5, 196), torch.int32),
    }
    threads = found["partition"]["grid"][2]
    got = EmulatedKernel(TOKEN_PARTITION, tmp_path)({"tokens": tokens, "scores": scores}, shapes, scalars, threads)
    for name, value in zip(shapes, token_partition(tokens, scores, 96, 1), strict=True):
        assert torch.equal(got[name], value)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("exchanged", "not 96 prefix and 196 patch rows"),
        ("too many", "cannot keep 300 of 196"),
        ("wrong dtype", "takes scores as float32, not float16"),
        ("wrong rank", "takes tokens with 3 axes, not 2"),
        ("mixed rows", "needs rows of one type"),
    ],
)
def test_mistakes_are_sentences(found: dict[str, Any], case: str, words: str) -> None:
    assert words in found[case]
