"""Exported networks of every kind of block, attention and position, in ONNX Runtime against PyTorch."""

import re

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.model.test_families import shortened
from tofe_export.graph.export import export_tofe
from tofe_export.model import backbones
from tofe_export.model.families import freezable_names
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe

KEEP = (9, 4)
FAST = ("vit_small_patch16_dinov3", "vit_relpos_small_patch16_224")
_EXPORTED: dict[str, str] = {}
"""Structure -> the first network that had it, in this process."""


def structure(model: ToFe) -> str:
    """What networks of one kind have in common: modules, names of weights, prefix tokens and pooling."""
    vit = model.vit
    kinds = sorted({type(part).__name__ for part in vit.modules()})
    weights = sorted({re.sub(r"\.\d+\.", ".N.", name) for name in vit.state_dict()})
    return f"{kinds} {weights} {vit.num_prefix_tokens} {vit.global_pool} {getattr(vit, 'rope_mixed', False)}"


def require_equal(model: ToFe, rearranged: bool) -> None:
    keep = tuple(min(count, model.tokens) for count in KEEP)
    images = backbones.zero_images(model.vit, 3).normal_()
    graph = export_tofe(model, keep, rearrange=rearranged, taps=False)
    session = ort.InferenceSession(ir.to_proto(graph).SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"images": images.numpy()})
    with torch.inference_mode():
        expected = model.forward_fixed(images, FixedPath(keep, rearranged)).logits.numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("name", FAST)
def test_the_file_computes_what_pytorch_computes(name: str) -> None:
    require_equal(shortened(name), rearranged=False)


@pytest.mark.slow
@pytest.mark.parametrize("name", freezable_names())
def test_every_structure_that_timm_has(name: str) -> None:
    model = shortened(name)
    first = _EXPORTED.setdefault(structure(model), name)
    if first != name:
        pytest.skip(f"the structure of {first}")
    for rearranged in (True, False):
        require_equal(model, rearranged)
