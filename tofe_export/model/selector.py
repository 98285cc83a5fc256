"""Token selectors: per-token keep/freeze logits [B, N, 2], index 0 = keep (DESIGN section 2; DynamicViT's
predictor is the `mlp` kind). Registered by name, so that a checkpoint can name its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from tofe_export.errors import InputError, nearest


class Selector(nn.Module):
    """What all selectors share: features per token, then one linear layer to the two logits.

    Args:
        width: width of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 2)

    def features(self, x: Tensor, alive: Tensor | None) -> Tensor:
        """Tokens [B, N, C] to features [B, N, width]; `alive` [B, N] is 0.0 where a token no longer exists."""
        raise NotImplementedError

    def logits(self, x: Float[Tensor, "B N C"], alive: Float[Tensor, "B N"] | None = None) -> Float[Tensor, "B N 2"]:
        """Keep/freeze logits, for training."""
        out: Tensor = self.out(self.features(x, alive))
        return out

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N"]:
        """Keep scores, logit_keep - logit_freeze in float32: what inference needs. Keep iff > 0.

        The difference is taken between the rows of the last layer, once, instead of between its outputs.
        """
        features = self.features(x, None).float()
        weight, bias = self.out.weight.float(), self.out.bias.float()
        return F.linear(features, weight[:1] - weight[1:], bias[:1] - bias[1:]).squeeze(2)


class MlpSelector(Selector):
    """Local features beside the mean over all tokens, then a three-layer MLP C -> C/2 -> C/4 -> 2."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim // 4)
        self.embed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.mix = nn.Linear(dim, dim // 2)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU())

    def features(self, x: Tensor, alive: Tensor | None) -> Tensor:
        """See `Selector.features`."""
        half = x.shape[2] // 2
        local, context = self.embed(x).split([half, x.shape[2] - half], dim=2)
        context = _mean_over_tokens(context, alive)
        # Linear(concat(local, context)) in two parts: the context is one row an image, not one a token.
        weight, bias = self.mix.weight, self.mix.bias
        mixed = F.linear(local, weight[:, :half]) + F.linear(context, weight[:, half:], bias)
        out: Tensor = self.mlp(mixed)
        return out


class LinearSelector(Selector):
    """LayerNorm and one linear layer: each token decides alone."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)

    def features(self, x: Tensor, alive: Tensor | None) -> Tensor:
        """See `Selector.features`."""
        out: Tensor = self.norm(x)
        return out


class AttentionSelector(Selector):
    """One self-attention layer over the tokens, then a linear layer."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)
        self.attn = Attention(dim, num_heads=heads, qkv_bias=True)
        self.out_norm = nn.LayerNorm(dim)

    def features(self, x: Tensor, alive: Tensor | None) -> Tensor:
        """See `Selector.features`."""
        bias = None if alive is None else attention_bias(alive, 0)
        out: Tensor = self.out_norm(x + self.attn(self.norm(x), attn_mask=bias))
        return out


SELECTORS: dict[str, Callable[[int, int], Selector]] = {
    "mlp": MlpSelector,
    "linear": LinearSelector,
    "attention": AttentionSelector,
}


def build_selector(name: str, dim: int, heads: int) -> Selector:
    """The selector called `name` for tokens of width `dim`.

    Raises:
        InputError: no selector of that name.
    """
    if name not in SELECTORS:
        raise InputError(f"There is no token selector {name!r}.", f"Use {nearest(name, SELECTORS)}.")
    return SELECTORS[name](dim, heads)


def keep_scores(logits: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N"]:
    """logit_keep - logit_freeze in float32, from logits (the masked path's form of `Selector.forward`)."""
    wide = logits.float()
    return wide[..., 0] - wide[..., 1]


def attention_bias(mask: Float[Tensor, "B N"], prefix: int, eps: float = 1e-12) -> Float[Tensor, "B 1 1 L"]:
    """log(mask + eps) as an additive bias on attention keys; prefix tokens always count.

    A float bias instead of a boolean mask, so that fused attention still works and the selector gets
    gradients. `eps` is small enough that a masked key's weight is below float32 resolution.
    """
    bias = (mask + eps).log()
    return F.pad(bias, (prefix, 0))[:, None, None, :]


def _mean_over_tokens(x: Tensor, alive: Tensor | None) -> Tensor:
    if alive is None:
        return x.mean(dim=1, keepdim=True)
    weight = alive.unsqueeze(-1)
    return (x * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)
