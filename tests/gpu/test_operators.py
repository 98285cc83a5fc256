"""The operators' bodies on the GPU, in every backend that works here: ties, zeros of both signs, NaN and infinities."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.readers import operators
from tofe_export.engine.backend import installed, open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import MissingError
from tofe_export.model.operators import token_partition
from tofe_export.progress import silent
from tofe_export.runners.base import Array
from tofe_export.runners.onnxruntime_runner import CUDA, OnnxRuntimeRunner


def rows() -> Array:
    """Token rows that are all different, with the scores that tell readers apart in their first channel."""
    scores = operators.scores()
    images = operators.tokens_for(scores)
    images[:, operators.PREFIX :, 0] = scores
    return images


def require_the_operator(found: dict[str, Array], images: Array) -> None:
    """What PyTorch's operator gives on the CPU, bit for bit."""
    scores = np.ascontiguousarray(images[:, operators.PREFIX :, 0])
    parts = token_partition(torch.from_numpy(images), torch.from_numpy(scores), operators.KEEP, operators.PREFIX)
    expected = {name: part.numpy() for name, part in zip(operators.PARTITION, parts, strict=True)}
    for name, mine, theirs in zip(operators.ROWS, found["perm"], expected["perm"], strict=True):
        assert np.array_equal(mine, theirs), name
    for name in ("kept", "frozen"):
        assert np.array_equal(found[name], expected[name], equal_nan=True), name


@pytest.mark.parametrize("backend", ["rtx", "tensorrt"])
def test_in_an_engine(backend: str) -> None:
    if not installed(backend):
        pytest.skip(f"the backend {backend} is not installed")
    opened, images = open_backend(backend), rows()
    options = BuildOptions("fp32", backend, "off", BatchProfile(1, len(images), len(images)))
    try:
        graph = ir.from_proto(onnx.load_from_string(operators.partition_of_rows()))
        built = build_engine(graph, opened, options, "fp32", silent)
        session = EngineSession(built.content, opened, "fp32")
    except MissingError as error:
        pytest.skip(str(error))
    require_the_operator(session.run(images), images)


def test_in_onnxruntime() -> None:
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("the installed ONNX Runtime has no CUDA provider (onnxruntime-gpu has)")
    images = rows()
    require_the_operator(OnnxRuntimeRunner(operators.partition_of_rows(), provider=CUDA).run(images), images)
