"""Names and sizes of backbones from the shapes of their weights."""

from __future__ import annotations

import functools

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers import refused_as, weightless
from tofe_export.checkpoints.shapes import arguments, backbone_name
from tofe_export.errors import InputError
from tofe_export.model import backbones

DEIT = "deit_tiny_patch16_224"
KNOWN = [
    "deit_tiny_patch16_224",
    "deit_small_patch16_224",
    "deit_base_patch16_224",
    "deit_small_distilled_patch16_224",
    "vit_large_patch16_224",
    "vit_small_patch32_224",
    "vit_base_patch8_224",
    "lvvit_t",
    "lvvit_s",
    "lvvit_m",
    "lvvit_l",
]


def weights_of(name: str, **arguments: object) -> dict[str, torch.Tensor]:
    return dict(weightless(lambda: timm.create_model(name, **arguments)).state_dict())


@pytest.mark.parametrize("name", KNOWN)
def test_published_sizes_are_known(name: str) -> None:
    weights = weights_of(name, num_classes=7)
    assert backbone_name(weights, "f") == name
    assert arguments(weights, name, None, "f") == {"num_classes": 7}


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "lvvit_t"])
def test_another_image_size_shows(name: str) -> None:
    assert arguments(weights_of(name, img_size=384), name, None, "f")["img_size"] == 384


def test_a_grid_that_is_no_square_must_be_said() -> None:
    weights = weights_of("deit_tiny_patch16_224", img_size=(256, 192))
    with refused_as("image-size-unknown", tokens=192):
        arguments(weights, DEIT, None, "f")
    assert arguments(weights, DEIT, (256, 192), "f")["img_size"] == [256, 192]
    with refused_as("image-size-unknown"):
        arguments(weights, DEIT, (256, 256), "f")


@pytest.mark.parametrize(
    "name", ["deit3_small_patch16_224", "vit_base_patch16_clip_224", "vit_small_patch14_reg4_dinov2"]
)
def test_families_that_share_shapes_must_be_named(name: str) -> None:
    with refused_as("backbone-unknown", path="f"):
        backbone_name(weights_of(name), "f")


@given(
    st.dictionaries(
        st.sampled_from(
            ["pos_embed", "cls_token", "patch_embed.proj.weight", "blocks.0.x", "head.weight", "reg_token"]
        ),
        st.lists(st.integers(0, 5), max_size=5).map(torch.zeros),
    )
)
def test_shapes_that_make_no_sense_are_refused_in_words(weights: dict[str, torch.Tensor]) -> None:
    for tell in (lambda: backbone_name(weights, "f"), lambda: arguments(weights, DEIT, None, "f")):
        try:
            tell()
        except InputError:
            continue


def test_names_are_ones_that_can_be_made() -> None:
    """Published numbers: 26.15 million parameters for LV-ViT-S, 55.83 for M, 150.47 for L at 448 pixels."""
    counts = {}
    for name, size in (("lvvit_s", 224), ("lvvit_m", 224), ("lvvit_l", 448)):
        vit = weightless(functools.partial(backbones.create_backbone, name, {"img_size": size}))
        counts[name] = round(sum(parameter.numel() for parameter in vit.parameters()) / 1e6, 2)
    assert counts == {"lvvit_s": 26.15, "lvvit_m": 55.83, "lvvit_l": 150.47}
