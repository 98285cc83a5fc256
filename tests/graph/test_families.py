"""Exported networks of every kind of block, attention and position, in ONNX Runtime against PyTorch."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.model.test_families import shortened
from tofe_export.graph.export import export_tofe
from tofe_export.model import backbones
from tofe_export.model.fixed_path import FixedPath

KEEP = (9, 4)
FAST = ("vit_small_patch16_dinov3", "vit_relpos_small_patch16_224")
SLOW = (
    "beit_base_patch16_224",
    "beitv2_base_patch16_224",
    "deit3_small_patch16_224",
    "eva02_tiny_patch14_224",
    "eva02_base_patch16_clip_224",
    "eva_giant_patch14_224",
    "vit_base_patch16_rope_reg1_gap_256",
    "vit_base_patch16_siglip_224",
    "vit_base_patch16_xp_224",
    "vit_base_r50_s16_224",
    "vit_dpwee_patch16_reg1_gap_256",
    "vit_pe_core_tiny_patch16_384",
    "vit_relpos_base_patch16_rpn_224",
    "vit_small_patch16_18x2_224",
    "vit_small_patch16_rope_mixed_ape_224",
    "vit_base_patch16_sapiens2",
    "vit_srelpos_small_patch16_224",
)


@pytest.mark.parametrize(
    ("name", "rearranged"),
    [
        *((name, False) for name in FAST),
        *(pytest.param(name, True, marks=pytest.mark.slow) for name in FAST),
        *(pytest.param(name, form, marks=pytest.mark.slow) for name in SLOW for form in (True, False)),
    ],
)
def test_the_file_computes_what_pytorch_computes(name: str, rearranged: bool) -> None:
    model = shortened(name)
    images = backbones.zero_images(model.vit, 3).normal_()
    graph = export_tofe(model, KEEP, rearrange=rearranged, taps=False)
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        expected = model.forward_fixed(images, FixedPath(KEEP, rearranged)).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
