"""Batches below an engine's profile."""

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import exported_tofe, small_images
from tofe_export.runners.base import Runner
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.runners.wrapped import Padded


class AtLeast:
    """A model that refuses fewer images than its profile allows."""

    backend, precision = "test", "fp32"

    def __init__(self, runner: Runner, least: int) -> None:
        self._runner, self._least = runner, least

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        assert len(images) >= self._least
        return self._runner.run(images)


@pytest.mark.parametrize("count", [1, 3, 4, 6])
def test_too_few_images_are_padded_and_cut(count: int) -> None:
    runner = OnnxRuntimeRunner(ir.to_proto(exported_tofe()).SerializeToString())
    images = small_images(count).numpy()
    padded = Padded(AtLeast(runner, 4), 4).run(images)
    expected = runner.run(images)
    assert padded["logits"].shape == expected["logits"].shape
    assert np.allclose(padded["logits"], expected["logits"], atol=1e-5)
