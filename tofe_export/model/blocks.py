"""A timm `Block` run in part: for some of its rows, or one half of it after the other. Its weights, no copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.layers import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

_WIDTHS = 8
Step = Callable[..., Tensor]
"""Tokens [B, L, C] to tokens: a whole block, or the second half of one."""


def run_steps(steps: Sequence[Step], tokens: Tensor, bias: Tensor | None = None, rows: int | None = None) -> Tensor:
    """Tokens [B, L, C] through `steps`.

    Args:
        steps: in order; without any, tokens stay as they are, all of them.
        tokens: [B, L, C].
        bias: [B, 1, 1, L], added to the attention scores of every key.
        rows: how many rows, at least 1 and the first ones, the last step is to compute, where no others are read
            afterwards; None for all. The result equals those rows of the whole up to the order of floating-point sums.
    """
    for number, step in enumerate(steps, start=1):
        tokens = run_step(step, tokens, bias, rows if number == len(steps) else None)
    return tokens


def run_step(step: Step, tokens: Tensor, bias: Tensor | None = None, rows: int | None = None) -> Tensor:
    """Tokens [B, L, C] through one step; see `run_steps`."""
    if isinstance(step, Recomputed):
        return step(tokens, bias, rows)
    if isinstance(step, FeedForward):
        return step(tokens if rows is None else tokens[:, :rows])
    if isinstance(step, Block) and can_split(step):
        if rows is not None:
            return block_on_prefix(step, tokens, rows, bias)
        if bias is not None and bias.requires_grad:
            return block_with_learned_bias(step, tokens, bias)
    out = step(tokens) if bias is None else step(tokens, attn_mask=bias)
    return out if rows is None else out[:, :rows]


@dataclass(frozen=True, eq=False)  # as `FeedForward`
class Recomputed:
    """A step that keeps nothing for its gradients and is computed again for them."""

    step: Step

    def __call__(self, tokens: Tensor, bias: Tensor | None = None, rows: int | None = None) -> Tensor:
        """See `run_step`."""
        out: Tensor = checkpoint(run_step, self.step, tokens, bias, rows, use_reentrant=False)
        return out


def can_split(block: object) -> bool:
    """Whether the functions here know this block; others can only run whole."""
    attention = getattr(block, "attn", None)
    return type(block) is Block and type(attention) is Attention and getattr(attention, "gate", None) is None


@dataclass(frozen=True, eq=False)  # torch.compile looks objects up before they have fields to hash
class FeedForward:
    """The second half of a block as a step; see `feed_forward`."""

    block: Block

    def __call__(self, tokens: Tensor) -> Tensor:
        """[B, L, C] to [B, L, C]."""
        return feed_forward(self.block, tokens)


def block_with_learned_bias(
    block: Block, tokens: Float[Tensor, "B L C"], bias: Float[Tensor, "B 1 1 L"]
) -> Float[Tensor, "B L C"]:
    """A block in training whose attention adds `bias`, which has gradients, to the score of each key.

    Fused attention takes no bias with gradients, or materializes [B, H, L, L] for them. So the bias goes in as one more
    component of the keys, at which all queries are 1. The block must be one that `can_split`.
    """
    attention = block.attn
    query, key, value = _split_heads(attention.qkv(block.norm1(tokens)), attention).unbind(0)
    query, key = attention.q_norm(query), attention.k_norm(key)
    component = (bias / attention.scale).to(key.dtype).transpose(2, 3).expand(*key.shape[:3], 1)
    # Kernels want widths that are multiples of 8, and the same one for all three.
    width = attention.head_dim
    room = -(width + 1) % _WIDTHS
    mixed = F.scaled_dot_product_attention(
        F.pad(F.pad(query, (0, 1), value=1.0), (0, room)),
        F.pad(torch.cat([key, component], dim=3), (0, room)),
        F.pad(value, (0, room + 1)),
        dropout_p=attention.attn_drop.p if attention.training else 0.0,
        scale=attention.scale,
    )
    mixed = _project_heads(attention, mixed[..., :width].transpose(1, 2).flatten(2))
    return feed_forward(block, tokens + block.drop_path1(block.ls1(mixed)))


def feed_forward(block: Block, tokens: Float[Tensor, "B L C"]) -> Float[Tensor, "B L C"]:
    """The second half of a block: tokens + MLP(norm(tokens)), row by row. The first is `attend`."""
    out: Tensor = tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))
    return out


def attend(block: Block, tokens: Float[Tensor, "B L C"]) -> tuple[Float[Tensor, "B L C"], Float[Tensor, "B H L L"]]:
    """The first half of a block, tokens + attention(norm(tokens)), and the attention weights of every head."""
    normed = block.norm1(tokens)
    attention = block.attn
    query, key, value = _split_heads(attention.qkv(normed), attention).unbind(0)
    mixed, weights = _mix(attention, query, key, value)
    return tokens + block.drop_path1(block.ls1(mixed)), weights


def block_on_prefix(
    block: Block, tokens: Float[Tensor, "B L C"], prefix: int, bias: Float[Tensor, "B 1 1 L"] | None = None
) -> Float[Tensor, "B P C"]:
    """A block evaluated for the first `prefix` rows only: they are the only queries.

    Every row still serves as key and value, `bias` added to its scores; projection and MLP run on the prefix rows. The
    same weights in the same order, so the result equals those rows of the block's up to the order of floating-point
    sums. The block must be one that `can_split`, and P at least 1.
    """
    attention = block.attn
    inner = attention.num_heads * attention.head_dim
    normed = block.norm1(tokens)
    (query,) = _project(attention, normed[:, :prefix], slice(0, inner))
    key, value = _project(attention, normed, slice(inner, 3 * inner))
    mixed, _ = _mix(attention, query, key, value, bias)
    return feed_forward(block, tokens[:, :prefix] + block.drop_path1(block.ls1(mixed)))


def _project(attention: Attention, rows: Tensor, outputs: slice) -> tuple[Tensor, ...]:
    """Some of query, key and value of the rows [B, L, C], each [B, H, L, D]."""
    weight, bias = attention.qkv.weight[outputs], attention.qkv.bias
    return _split_heads(F.linear(rows, weight, None if bias is None else bias[outputs]), attention).unbind(0)


def _split_heads(rows: Tensor, attention: Attention) -> Tensor:
    """[B, L, parts * H * D] to [parts, B, H, L, D]."""
    return rows.view(*rows.shape[:2], -1, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)


def _mix(
    attention: Attention, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Attention proper, spelt out, and the output projection: rows [B, L, C] and weights [B, H, L, L']."""
    query, key = attention.q_norm(query) * attention.scale, attention.k_norm(key)
    scores = query @ key.transpose(-2, -1)
    weights = (scores if bias is None else scores + bias).softmax(dim=-1)
    mixed = (attention.attn_drop(weights) @ value).transpose(1, 2).flatten(2)
    return _project_heads(attention, mixed), weights


def _project_heads(attention: Attention, mixed: Tensor) -> Tensor:
    """What the heads found, [B, L, H * D], to [B, L, C]."""
    # Older releases of timm have no norm here.
    out: Tensor = attention.proj_drop(attention.proj(attention.norm(mixed) if hasattr(attention, "norm") else mixed))
    return out


def explicit_attention(module: nn.Module) -> None:
    """Makes every attention in `module` spell out its softmax instead of calling fused attention.

    The explicit form exports to fewer ONNX nodes than the fused one and is what runtimes' fusions look for.
    """
    for child in module.modules():
        if hasattr(child, "fused_attn"):
            setattr(child, "fused_attn", False)  # noqa: B010 - a plain flag, though nn.Module types it as a tensor
