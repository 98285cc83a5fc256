"""How the masked path turns a selector's logits into a mask."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from tofe_export.model.selector import keep_scores

Choose = Callable[[int, Tensor], Tensor]
"""(stage index, keep/freeze logits [B, N, 2]) -> mask [B, N] of 0.0 and 1.0."""


def gumbel_choice(temperature: float, noise: float = 1.0) -> Choose:
    """Straight-through Gumbel-Softmax: hard 0/1 forward, soft gradients (Jang et al., arXiv 1611.01144).

    Args:
        temperature: of the softmax that the gradients see.
        noise: scale of the Gumbel noise. With 0 the mask is the threshold path's own (score > 0), gradients still
            flowing: a training that ends there has met its budget on the path that will be used, where ending on
            noisy masks leaves the two apart by all tokens whose score is near 0.
    """

    def choose(stage: int, logits: Tensor) -> Tensor:
        wide = logits.float()
        if noise > 0:
            gumbel = -torch.empty_like(wide).exponential_().clamp(min=torch.finfo(wide.dtype).tiny).log()
            wide = wide + noise * gumbel
        soft = F.softmax(wide / temperature, dim=-1)[..., 0]
        hard = (wide[..., 0] > wide[..., 1]).to(soft.dtype)
        return hard + (soft - soft.detach())

    return choose


def threshold_choice(stage: int, logits: Tensor) -> Tensor:
    """The threshold path's rule, score > 0, as a mask for the dense path: what evaluation in batches uses."""
    return (keep_scores(logits) > 0).float()
