"""A ToMe-like network (Bolya et al., arXiv 2210.09461): in each block the r most similar pairs of tokens are merged.

Between attention and MLP the tokens are dealt to two sets in turn; every token of the first finds the most similar one
of the second by its mean key, the r best pairs become weighted means, and attention counts a merged token as often as
it stands for tokens. Without its tricks for training.
"""

from __future__ import annotations

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.model import backbones


class TokenMerging(nn.Module):
    """`vit` with `r` tokens merged in each block; at least one patch stays."""

    def __init__(self, vit: VisionTransformer, r: int) -> None:
        super().__init__()
        self.vit, self.r = vit, r

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] to logits."""
        x = backbones.embed(self.vit, images)
        size = torch.ones_like(x[:, :, :1])
        for block in self.vit.blocks:
            attended, keys = _attend(block.attn, block.norm1(x), size)
            x = x + block.ls1(attended)
            merged = min(self.r, (x.shape[1] - 1) // 2)
            if merged:
                x, size = _merge(x, size, keys, merged)
            x = x + block.ls2(block.mlp(block.norm2(x)))
        return backbones.classify(self.vit, self.vit.norm(x))


def merged_macs(vit: VisionTransformer, r: int) -> float:
    """Multiply-accumulates of one image: embedding, blocks and head; the matching is not counted."""
    dim, tokens = int(vit.embed_dim), int(vit.patch_embed.num_patches) + int(vit.num_prefix_tokens)
    rows, columns = vit.patch_embed.patch_size
    total = float((tokens - 1) * dim * 3 * rows * columns + dim * int(vit.num_classes))
    for _ in vit.blocks:
        total += tokens * 4 * dim * dim + 2 * tokens * tokens * dim
        tokens -= min(r, (tokens - 1) // 2)
        total += tokens * 8 * dim * dim
    return total


def _attend(attention: nn.Module, rows: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """Attention in which a key counts `size` times; also the mean key of all heads."""
    batch, length, width = rows.shape
    packed = attention.qkv(rows).reshape(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = packed.unbind(0)
    scores = (query * attention.scale) @ key.transpose(-2, -1) + size.log()[:, None, None, :, 0]
    mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, length, width)
    return attention.proj(mixed), key.mean(dim=1)


def _merge(x: Tensor, size: Tensor, keys: Tensor, r: int) -> tuple[Tensor, Tensor]:
    keys = F.normalize(keys, dim=-1)
    first, second = keys[:, ::2], keys[:, 1::2]
    likeness = first @ second.transpose(-1, -2)
    likeness = torch.cat([torch.full_like(likeness[:, :1], -torch.inf), likeness[:, 1:]], dim=1)  # CLS stays
    best, partner = likeness.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    gone, kept = order[:, :r], order[:, r:]
    weighted = torch.cat([x * size, size], dim=-1)
    left, right = weighted[:, ::2], weighted[:, 1::2]
    width = weighted.shape[-1]
    moved = left.gather(1, gone[..., None].expand(-1, -1, width))
    target = partner.gather(1, gone)[..., None].expand(-1, -1, width)
    right = right.scatter_add(1, target, moved)
    left = left.gather(1, kept.sort(dim=-1).values[..., None].expand(-1, -1, width))  # CLS first again
    both = torch.cat([left, right], dim=1)
    size = both[..., -1:]
    return both[..., :-1] / size, size
