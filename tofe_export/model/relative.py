"""Blocks whose attention adds a bias between places, run with the bias given. Their weights, no copies.

timm's own `forward` reads the bias of all places from within; kept tokens need that of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from timm.models.beit import Beit
from timm.models.vision_transformer_relpos import ResPostRelPosBlock, VisionTransformerRelPos
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, eq=False)  # see `FeedForward`
class BiasedBlock:
    """A block of BEiT or of a ViT with relative positions as a step.

    Attributes:
        block: timm's.
        bias: [B or 1, H, L, L], added to the attention scores.
    """

    block: Any
    bias: Tensor

    def __call__(self, tokens: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """[B, L, C] to [B, L, C]; `attn_mask` [B, 1, 1, L] is added to the scores of every key."""
        return run_with_bias(self.block, tokens, self.bias if attn_mask is None else self.bias + attn_mask)


def run_with_bias(block: Any, tokens: Tensor, bias: Tensor) -> Tensor:
    """A block's `forward` with the bias given: its norms stand before its two halves, or behind them."""
    if isinstance(block, ResPostRelPosBlock):
        mixed = block.norm1(attend_with_bias(block.attn, tokens, bias))
        tokens = tokens + block.drop_path1(mixed)
        changed = block.norm2(block.mlp(tokens))
    else:
        first, second = _scales(block)
        mixed = first(attend_with_bias(block.attn, block.norm1(tokens), bias))
        tokens = tokens + block.drop_path1(mixed)
        changed = second(block.mlp(block.norm2(tokens)))
    out: Tensor = tokens + block.drop_path2(changed)
    return out


def _scales(block: Any) -> tuple[Any, Any]:
    """What multiplies the channels of each half."""
    if hasattr(block, "ls1"):
        return block.ls1, block.ls2
    if block.gamma_1 is None:
        return nn.Identity(), nn.Identity()
    return block.gamma_1.mul, block.gamma_2.mul


def attend_with_bias(attention: Any, tokens: Float[Tensor, "B L C"], bias: Tensor) -> Float[Tensor, "B L C"]:
    """Attention over all rows, with `bias` [B or 1, H, L, L] added to its scores."""
    batch, length, _ = tokens.shape
    products = attention.qkv(tokens)
    if getattr(attention, "q_bias", None) is not None:  # BEiT keeps biases by themselves, and has none on keys
        products = products + torch.cat([attention.q_bias, torch.zeros_like(attention.v_bias), attention.v_bias])
    shaped = products.view(batch, length, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = shaped.unbind(0)
    if hasattr(attention, "q_norm"):
        query, key = attention.q_norm(query), attention.k_norm(key)
    bias = bias.to(query.dtype)
    if attention.fused_attn:
        dropped = attention.attn_drop.p if attention.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropped)
    else:
        weights = (query * attention.scale @ key.transpose(-2, -1) + bias).softmax(dim=-1)
        mixed = attention.attn_drop(weights) @ value
    out: Tensor = attention.proj_drop(attention.proj(mixed.transpose(1, 2).flatten(2)))
    return out


def bias_of_beit(vit: Beit) -> list[Float[Tensor, "H L L"]]:
    """Of every block: its own table's, and the shared one's."""
    shared = None if vit.rel_pos_bias is None else vit.rel_pos_bias()
    own = [
        None if block.attn.relative_position_bias_table is None else block.attn._get_rel_pos_bias().squeeze(0)
        for block in vit.blocks
    ]
    return [_sum(vit, part, shared) for part in own]


def bias_of_relpos(vit: VisionTransformerRelPos) -> list[Float[Tensor, "H L L"]]:
    """Of every block: its own, or else the shared one."""
    shared = None if vit.shared_rel_pos is None else vit.shared_rel_pos.get_bias().squeeze(0)
    return [
        _sum(vit, None, shared) if block.attn.rel_pos is None else block.attn.rel_pos.get_bias().squeeze(0)
        for block in vit.blocks
    ]


def _sum(vit: Any, own: Tensor | None, shared: Tensor | None) -> Tensor:
    parts = [part for part in (own, shared) if part is not None]
    if not parts:  # a network built without any
        length = int(vit.patch_embed.num_patches) + int(vit.num_prefix_tokens)
        return torch.zeros(int(vit.blocks[0].attn.num_heads), length, length, device=next(vit.parameters()).device)
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]
