"""Small networks with random weights that matter, as timm makes them."""

from __future__ import annotations

import functools
from typing import Any

import timm
import torch
from torch import nn

from tofe_export.checkpoints.foreign import Hints

SMALL: dict[str, dict[str, Any]] = {
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 2, "num_classes": 7},
    "deit_tiny_distilled_patch16_224": {"img_size": 64, "depth": 2, "num_classes": 7},
    "deit3_small_patch16_224": {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 7},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56, "depth": 2, "embed_dim": 96, "num_heads": 3},
    "vit_small_patch16_dinov3": {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3},
    "eva02_tiny_patch14_224": {"img_size": 56, "depth": 2, "num_classes": 7},
    "beit_base_patch16_224": {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 7},
    "vit_relpos_small_patch16_224": {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3, "num_classes": 7},
    "vit_base_patch16_siglip_224": {"img_size": 64, "depth": 2, "embed_dim": 96, "num_heads": 3},
}


@functools.cache
def network(name: str) -> nn.Module:
    """timm's `name`, small."""
    return randomized(timm.create_model(name, **SMALL[name]))


def randomized(built: nn.Module) -> nn.Module:
    """The same with every weight moved, for some begin as zeros."""
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in built.parameters():
            weight.add_(torch.randn_like(weight) * 0.1)
    return built.eval()


def hints(name: str) -> Hints:
    """What a user says of it who knows timm."""
    return Hints(name, {key: value for key, value in SMALL[name].items() if key != "num_classes"})
