"""Patch sizes 8, 14, 16 and 32, images that are no squares, and networks made for one size and exported for another."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.helpers import SMALL
from tofe_export.graph.export import export_tofe
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import build_tofe

VIT, LVVIT = "vit_tiny_patch16_224", "lvvit_t"


@pytest.mark.parametrize(
    ("backbone", "patch", "made_for", "wanted", "keep"),
    [
        (LVVIT, 8, 32, (48, 32), 23),
        (VIT, 14, 42, (56, 42), 6),
        (LVVIT, 14, 42, (56, 42), 11),
        (VIT, 16, 64, (64, 32), 7),
        (VIT, 32, 96, (96, 64), 3),
    ],
)
def test_another_size_than_it_was_made_for(
    backbone: str, patch: int, made_for: int, wanted: tuple[int, int], keep: int
) -> None:
    torch.manual_seed(0)
    arguments = {**SMALL, "depth": 1, "patch_size": patch, "img_size": made_for}
    model = build_tofe(ToFeConfig(backbone, arguments, stage_starts=(0,))).eval()
    model.set_image_size(*wanted)
    tokens = wanted[0] * wanted[1] // patch**2
    graph = export_tofe(model, (keep,), rearrange=False, taps=False, outputs=("features", "logits"))
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString())
    images = torch.randn(3, 3, *wanted)
    features, logits = session.run(None, {"images": images.numpy()})
    assert features.shape == (3, tokens, 32)
    with torch.inference_mode():
        expected = model.forward_fixed(images, FixedPath((keep,), features=True))
    np.testing.assert_allclose(logits, expected.logits, atol=1e-5)
    np.testing.assert_allclose(features, expected.features, atol=2e-5)
