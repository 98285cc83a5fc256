"""LV-ViT (Jiang et al., arXiv 2104.10858), built from timm's layers and registered with timm by its published names.

What differs from a DeiT: a convolutional stem, residual branches divided by a constant, no bias on queries, keys and
values, LayerNorm eps 1e-5, and a head that reads every token: logits = head(CLS) + 0.5 * max over tokens of
aux_head(token). Parameter names are those of the TokenLabeling checkpoints.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from timm.layers import PatchEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F


class ConvolutionalStem(PatchEmbed):
    """Three convolutions at half the resolution, each with BatchNorm and ReLU, then patches of their output.

    Args:
        patch_size: even; the last convolution takes half of it, for the first has halved the image.
        stem: channels of the convolutions.
        img_size, in_chans, embed_dim, options: what timm hands to its own patch embedding.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_chans: int = 3,
        embed_dim: int = 768,
        stem: int = 64,
        **options: Any,
    ) -> None:
        if patch_size % 2:
            raise ValueError(f"LV-ViT's patch size must be even, not {patch_size}")
        super().__init__(img_size, patch_size, in_chans, embed_dim, **options)
        self.conv1 = nn.Conv2d(in_chans, stem, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.conv2 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(stem)
        self.conv3 = nn.Conv2d(stem, stem, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(stem)
        self.proj = nn.Conv2d(stem, embed_dim, patch_size // 2, stride=patch_size // 2)

    def forward(self, x: Float[Tensor, "B D H W"]) -> Float[Tensor, "B N C"]:
        """Images to patch tokens."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        patches: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return patches


class SkipScale(nn.Module):
    """Divides a residual branch by a constant. It stands where timm's blocks have their layer scale."""

    def __init__(self, divisor: float) -> None:
        super().__init__()
        self.divisor = divisor

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return x / self.divisor


class LVViT(VisionTransformer):
    """A timm ViT with LV-ViT's stem, residual scale and head.

    Args:
        skip_lam: what residual branches are divided by.
        stem: channels of the stem's convolutions.
        global_pool: "token" only; the head is LV-ViT's own.
        num_classes, embed_dim, options: of timm's `VisionTransformer`.

    Raises:
        ValueError: another pooling, or no classes.
    """

    def __init__(
        self,
        skip_lam: float = 1.0,
        stem: int = 64,
        num_classes: int = 1000,
        embed_dim: int = 768,
        global_pool: str = "token",
        **options: Any,
    ) -> None:
        if global_pool != "token" or num_classes < 1:
            raise ValueError("LV-ViT has a head of its own, which needs classes and takes no global_pool")
        # timm looks the other parts up by class; these two are ours and finished here.
        super().__init__(
            embed_layer=partial(ConvolutionalStem, stem=stem),
            norm_layer=partial(nn.LayerNorm, eps=1e-5),
            num_classes=num_classes,
            embed_dim=embed_dim,
            **{"qkv_bias": False, "mlp_ratio": 3.0, **options},
        )
        self.aux_head = nn.Linear(embed_dim, num_classes)
        if skip_lam != 1.0:
            for block in self.blocks:
                assert isinstance(block, Block)
                block.ls1, block.ls2 = SkipScale(skip_lam), SkipScale(skip_lam)

    def forward_head(
        self, x: Float[Tensor, "B L C"], pre_logits: bool = False, alive: Float[Tensor, "B N"] | None = None
    ) -> Tensor:
        """Final tokens, normalized, to logits [B, K]; with `pre_logits` they are returned as they are.

        `alive` is 0.0 where a patch token no longer exists, so that no maximum is its; None if all do.
        """
        if pre_logits:
            return x
        of_cls: Tensor = self.head(x[:, 0])
        scores = self.aux_head(x[:, self.num_prefix_tokens :])
        if not scores.shape[1]:  # an image may keep nothing but its CLS token
            return of_cls
        if alive is not None:
            gone = alive.unsqueeze(-1) == 0
            scores = scores.masked_fill(gone, torch.finfo(scores.dtype).min).masked_fill(gone.all(1, keepdim=True), 0.0)
        logits: Tensor = of_cls + 0.5 * scores.amax(dim=1)
        return logits

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Fresh heads for another number of classes."""
        super().reset_classifier(num_classes)
        self.aux_head = nn.Linear(self.embed_dim, num_classes)


def _cfg(crop_pct: float) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": crop_pct,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "first_conv": "patch_embed.conv1",
        "classifier": ("head", "aux_head"),
    }


default_cfgs = generate_default_cfgs(
    {"lvvit_t": _cfg(0.9), "lvvit_s": _cfg(0.9), "lvvit_m": _cfg(1.0), "lvvit_l": _cfg(1.0)}
)


def _create(name: str, pretrained: bool, sizes: dict[str, Any], arguments: dict[str, Any]) -> LVViT:
    vit: LVViT = build_model_with_cfg(LVViT, name, pretrained, **{**sizes, **arguments})
    return vit


@register_model
def lvvit_t(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-T: 240 wide, 12 blocks, 4 heads."""
    return _create("lvvit_t", pretrained, {"embed_dim": 240, "depth": 12, "num_heads": 4}, kwargs)


@register_model
def lvvit_s(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-S: 384 wide, 16 blocks, 6 heads."""
    sizes = {"embed_dim": 384, "depth": 16, "num_heads": 6, "skip_lam": 2.0}
    return _create("lvvit_s", pretrained, sizes, kwargs)


@register_model
def lvvit_m(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-M: 512 wide, 20 blocks, 8 heads."""
    sizes = {"embed_dim": 512, "depth": 20, "num_heads": 8, "skip_lam": 2.0}
    return _create("lvvit_m", pretrained, sizes, kwargs)


@register_model
def lvvit_l(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-L: 768 wide, 24 blocks, 12 heads, 128 channels in the stem."""
    sizes = {"embed_dim": 768, "depth": 24, "num_heads": 12, "skip_lam": 3.0, "stem": 128}
    return _create("lvvit_l", pretrained, sizes, kwargs)
