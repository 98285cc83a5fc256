"""Every network of timm's families with plain tokens, shortened: it freezes tokens rightly, or a sentence says why not.

The names come from timm, so that a release with new ones is seen.
"""

import re

import pytest
import timm
import torch
from timm.models.vision_transformer_relpos import VisionTransformerRelPos

from tests.helpers import refused_as, sampled
from tofe_export.model import backbones
from tofe_export.model.blocks import explicit_attention
from tofe_export.model.config import ToFeConfig
from tofe_export.model.families import CLASSES, freezable_names, module_of
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import count_macs, dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe, build_tofe

KEEP = (9, 4)
FIXED_WIDTH = ("vit_base_mci_224",)  # its stem has no projection to another width


def shortened(name: str, **more: object) -> ToFe:
    """Two stages of one block each behind one block, few tokens, and weights that matter everywhere."""
    arguments: dict[str, object] = {"depth": 3, **more}
    if name not in FIXED_WIDTH:
        arguments |= {"embed_dim": 48, "num_heads": 3}
    if patch := re.search(r"patch(\d+)", name):
        arguments["img_size"] = 4 * int(patch[1])
    if "sapiens" in name:
        arguments["num_kv_heads"] = 3
    torch.manual_seed(0)
    model = build_tofe(ToFeConfig(name, arguments, stage_starts=(1, 2))).eval()
    with torch.no_grad():
        for weight in model.vit.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return model


@pytest.mark.parametrize("name", sampled(freezable_names(), 5))
def test_tokens_are_frozen_rightly(name: str) -> None:
    model = shortened(name)
    images = backbones.zero_images(model.vit, 2).normal_()
    keep = tuple(min(count, model.tokens) for count in KEEP)
    with torch.inference_mode():
        dense = model.vit(images)
        whole = model.forward_fixed(images, FixedPath((model.tokens,) * 2)).logits
        fixed = model.forward_fixed(images, FixedPath(keep))
        elided = model.forward_fixed(images, FixedPath(keep, rearranged=False)).logits
        masks = [
            torch.zeros(2, model.tokens).scatter(1, trace.perm[:, :count].long(), 1.0)
            for trace, count in zip(fixed.stages, keep, strict=True)
        ]
        masked = model.forward_masked(images, lambda stage, logits: masks[stage]).logits
    assert (dense - dense.mean()).abs().max() > 0.01, "a network that says nothing proves nothing"
    torch.testing.assert_close(whole, dense, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(elided, fixed.logits, rtol=1e-4, atol=1e-4)
    # In the masked path every token stays in its place, so timm's own tables are read as they are.
    torch.testing.assert_close(masked, fixed.logits, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(fixed.logits, dense, rtol=1e-3, atol=1e-3), "freezing changed nothing"
    if not isinstance(model.vit, VisionTransformerRelPos):  # timm computes its biases anew for every image
        vit = model.vit.requires_grad_(False)
        explicit_attention(vit)
        assert dense_macs(vit) == pytest.approx(count_macs(lambda: vit(images[:1])), rel=1e-9)
        counted = count_macs(lambda: model.forward_fixed(images[:1], FixedPath(keep, rearranged=False)))
        assert tofe_macs(model, [float(count) for count in keep]) == pytest.approx(counted, rel=1e-9)


@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_relpos_small_patch16_224", "beit_base_patch16_224"])
def test_a_block_that_reads_places_is_no_approximator(name: str) -> None:
    with refused_as("block-needs-places", backbone=name):
        build_tofe(ToFeConfig(name, {"depth": 4, "embed_dim": 48, "num_heads": 3}, approximator="block"))


@pytest.mark.filterwarnings("ignore::UserWarning")  # of PyTorch, in how timm resizes the tables of BEiT
@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_relpos_small_patch16_224", "beit_base_patch16_224"])
def test_another_image_size(name: str) -> None:
    """The tables of places are made anew; timm does it for a network of its own."""
    model = shortened(name, num_classes=10)
    model.set_image_size(96, 80)
    images = torch.randn(1, 3, 96, 80)
    with torch.inference_mode():
        whole = model.forward_fixed(images, FixedPath((model.tokens,) * 2)).logits
        torch.testing.assert_close(whole, model.vit(images), rtol=1e-4, atol=1e-4)
        fixed, elided = (model.forward_fixed(images, FixedPath((9, 4), form)).logits for form in (True, False))
        torch.testing.assert_close(elided, fixed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in timm.list_models() if module_of(name) not in CLASSES])
def test_other_networks_are_refused_with_the_reason(name: str) -> None:
    with refused_as("not-a-plain-vit", name=name):
        backbones.create_backbone(name, {})


@pytest.mark.parametrize("prefix", ["vit_", "deit", "beit", "eva"])
def test_a_family_with_plain_names_has_a_reason_of_its_own(prefix: str) -> None:
    for name in timm.list_models(f"{prefix}*"):
        if module_of(name) not in CLASSES:
            with refused_as("not-a-plain-vit") as caught:
                backbones.create_backbone(name, {})
            assert "another kind of network" not in str(caught.value), name
