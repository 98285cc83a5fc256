"""Post-training quantization by NNCF: the INT8 model runs, and selects by the scores that it computes."""

from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from tests.helpers import small_images
from tests.readers.conftest import Written
from tofe_export.model.operators import rank_tokens
from tofe_export.runners.base import Array
from tofe_export.runners.openvino_runner import openvino_core

nncf = pytest.importorskip("nncf", reason="NNCF is not installed: make readers")
SELECTORS = ".*selector.*"
"""The nodes that compute scores, as a pattern of names: in float32 they choose nearly the same tokens."""


def test_nncf_sends_nothing() -> None:
    from nncf.telemetry.wrapper import telemetry

    assert isinstance(telemetry, MagicMock), "NNCF_CI should have put this in the place of what sends"


def quantized(written: Written, **options: Any) -> tuple[int, dict[str, Array]]:
    """How many quantizers NNCF put in, and the outputs of the INT8 model."""
    core = openvino_core()
    calibration = nncf.Dataset([image[None] for image in small_images(4, seed=1).numpy()])
    model = nncf.quantize(core.read_model(written.inlined), calibration, subset_size=4, **options)
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
    outputs = dict(zip(written.expected, compiled(written.images).values(), strict=True))
    return sum(node.get_type_name() == "FakeQuantize" for node in model.get_ops()), outputs


@pytest.mark.parametrize(("pattern", "cosine"), [(None, 0.85), (SELECTORS, 0.95)])
def test_int8(written: Written, pattern: str | None, cosine: float) -> None:
    scope = {"ignored_scope": nncf.IgnoredScope(patterns=[pattern])} if pattern else {}
    quantizers, outputs = quantized(written, **scope)
    assert quantizers > 50
    for stage in range(3):
        scores, perm = outputs[f"stage{stage}.scores"], outputs[f"stage{stage}.perm"]
        assert not np.array_equal(scores, written.expected[f"stage{stage}.scores"]), "it was quantized"
        assert np.array_equal(perm, rank_tokens(torch.from_numpy(scores)).numpy())
    logits, expected = outputs["logits"].ravel(), written.expected["logits"].ravel()
    assert logits @ expected / np.linalg.norm(logits) / np.linalg.norm(expected) > cosine
    if pattern:
        kept = [(outputs["stage0.perm"][image, :8], written.expected["stage0.perm"][image, :8]) for image in range(3)]
        assert all(len(np.intersect1d(*both)) >= 7 for both in kept)
