"""Token selectors: per-token keep/freeze logits [B, N, 2], index 0 = keep (DESIGN section 2; DynamicViT's
predictor is the `mlp` kind). Registered by name, so that a checkpoint can name its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional as F

CLS_ATTENTION = "cls-attention"
"""Keep what the CLS token attends to (EViT, arXiv 2202.07800). No module: the stage's first block gives the scores."""
NO_SELECTOR = "none"
"""The dense backbone: no stages at all."""
Choose = Callable[[int, Tensor], Tensor]
"""(stage index, keep/freeze logits [B, N, 2]) -> mask [B, N] of 0.0 and 1.0, for the masked path."""


class Selector(nn.Module):
    """What all selectors share: features per token, then one linear layer to the two logits.

    Selectors are handed prefix rows too and told by a mask not to look at them: dropping the prefix rows' scores
    at the end is cheaper than copying every patch row at the start.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 2)

    def features(self, x: Float[Tensor, "B L C"], seen: Float[Tensor, "_ L"]) -> Float[Tensor, "B L W"]:
        """Rows to features. `seen` [B or 1, L] is 0.0 where a row must not influence the others, else 1.0."""
        raise NotImplementedError

    def logits(
        self, x: Float[Tensor, "B L C"], prefix: int, alive: Float[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B N 2"]:
        """Keep/freeze logits of the patch tokens, for training.

        `x` has P = `prefix` rows and then N patches; `alive` is 0.0 where one no longer exists, None if all do.
        """
        out: Tensor = self.out(self.features(x, _seen(x, prefix, alive)))
        return out[:, prefix:]

    def forward(self, x: Float[Tensor, "B L C"], prefix: int) -> Float[Tensor, "B N"]:
        """Keep scores, logit_keep - logit_freeze in float32: what inference needs. Keep iff > 0.

        The difference is taken between the rows of the last layer, once, instead of between its outputs. It stays a
        matrix of one column: several runtimes know no product with a vector.
        """
        features = self.features(x, _seen(x, prefix, None)).float()
        weight, bias = self.out.weight.float(), self.out.bias.float()
        scores = F.linear(features, weight[:1] - weight[1:], bias[:1] - bias[1:])
        return scores[:, prefix:].squeeze(2)


class MlpSelector(Selector):
    """Local features beside the mean over all tokens, then a three-layer MLP C -> C/2 -> C/4 -> 2."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim // 4)
        self.embed = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.mix = nn.Linear(dim, dim // 2)
        self.mlp = nn.Sequential(nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU())

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
        """See `Selector.features`."""
        # Each linear layer in two halves, local and context, so that nothing is split or joined: the context is
        # one row per image, the mean a product with weights that are constant in inference.
        norm, embed, act = self.embed
        assert isinstance(embed, nn.Linear)
        half = x.shape[2] // 2
        rows = norm(x)
        local = act(F.linear(rows, embed.weight[:half], embed.bias[:half]))
        context = act(F.linear(rows, embed.weight[half:], embed.bias[half:]))
        shares = seen / seen.sum(dim=1, keepdim=True).clamp(min=torch.finfo(seen.dtype).tiny)
        context = shares.to(context.dtype).unsqueeze(1) @ context
        weight, bias = self.mix.weight, self.mix.bias
        mixed = F.linear(local, weight[:, :half]) + F.linear(context, weight[:, half:], bias)
        out: Tensor = self.mlp(mixed)
        return out


class LinearSelector(Selector):
    """LayerNorm and one linear layer: each token decides alone."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim)
        self.norm = nn.LayerNorm(dim)

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
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

    def features(self, x: Tensor, seen: Tensor) -> Tensor:
        """See `Selector.features`."""
        out: Tensor = self.out_norm(x + self.attn(self.norm(x), attn_mask=attention_bias(seen, 0)))
        return out


_LEARNED: dict[str, Callable[[int, int], Selector]] = {
    "mlp": MlpSelector,
    "linear": LinearSelector,
    "attention": AttentionSelector,
}
SELECTORS = (*_LEARNED, CLS_ATTENTION, NO_SELECTOR)


def build_selector(name: str, dim: int, heads: int) -> Selector | None:
    """The selector called `name` for tokens of width `dim`; None where it has no parameters of its own."""
    return _LEARNED[name](dim, heads) if name in _LEARNED else None


def keep_scores(logits: Float[Tensor, "B N 2"]) -> Float[Tensor, "B N"]:
    """logit_keep - logit_freeze in float32, from logits (the masked path's form of `Selector.forward`)."""
    wide = logits.float()
    return wide[..., 0] - wide[..., 1]


def gumbel_choice(
    temperature: float | Tensor, noise: float | Tensor = 1.0, drawn: Float[Tensor, "S B N 2"] | None = None
) -> Choose:
    """Straight-through Gumbel-Softmax: hard 0/1 forward, soft gradients (Jang et al., arXiv 1611.01144).

    Args:
        temperature: of the softmax that the gradients see.
        noise: scale of the Gumbel noise. With 0 the mask is the threshold path's own (score > 0), gradients still
            flowing: a training that ends there has met its budget on the path that will be used, where ending on
            noisy masks leaves the two apart by all tokens whose score is near 0.
        drawn: Gumbel numbers for every stage, see `gumbel_numbers`; None draws them from the global generator.
    """

    def choose(stage: int, logits: Tensor) -> Tensor:
        wide = logits.float()
        if drawn is not None or noise > 0:
            wide = wide + noise * (gumbel_numbers(wide.shape, wide.device) if drawn is None else drawn[stage])
        soft = F.softmax(wide / temperature, dim=-1)[..., 0]
        hard = (wide[..., 0] > wide[..., 1]).to(soft.dtype)
        return hard + (soft - soft.detach())

    return choose


def gumbel_numbers(
    shape: Sequence[int], device: torch.device, generator: torch.Generator | None = None
) -> Float[Tensor, ...]:
    """float32 numbers of the standard Gumbel distribution; None draws from the global generator."""
    drawn = torch.empty(tuple(shape), device=device).exponential_(generator=generator)
    return -drawn.clamp(min=torch.finfo(drawn.dtype).tiny).log()


def threshold_choice(stage: int, logits: Tensor) -> Tensor:
    """The threshold path's rule, score > 0, as a mask for the dense path: what evaluation in batches uses."""
    return (keep_scores(logits) > 0).float()


def attention_bias(mask: Float[Tensor, "B N"], prefix: int, eps: float = 1e-12) -> Float[Tensor, "B 1 1 L"]:
    """log(mask + eps) as an additive bias on attention keys; prefix tokens always count.

    A float bias instead of a boolean mask, so that fused attention still works and the selector gets gradients.
    A mask without gradients needs no eps: its frozen keys get no weight at all, however large their logits are.
    """
    # Clamped to the lowest finite number, so that a row of nothing is not NaN.
    bias = (mask + eps if mask.requires_grad else mask).log().clamp(min=torch.finfo(mask.dtype).min)
    return F.pad(bias, (prefix, 0))[:, None, None, :]


def _seen(x: Tensor, prefix: int, alive: Tensor | None) -> Tensor:
    """[B or 1, P+N]: 1.0 for each patch token that exists, 0.0 for prefix rows."""
    if alive is None:
        alive = x.new_ones(1, x.shape[1] - prefix)
    return F.pad(alive, (prefix, 0))
