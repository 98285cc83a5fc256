"""What changes over a phase: learning rate, Gumbel temperature and noise. Pure functions of progress."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from tofe_export.model.tofe import Choose


def learning_rate_factor(progress: float, warmup: float) -> float:
    """Linear warm-up to 1, then a half cosine to 0.

    Args:
        progress: share of the phase that is done, 0..1.
        warmup: share of the phase that warms up, 0 <= warmup < 1.
    """
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))


def temperature_at(progress: float, start: float, end: float) -> float:
    """Geometric interpolation from `start` to `end` (both > 0)."""
    return float(start * (end / start) ** progress)


def noise_at(progress: float, quiet: float) -> float:
    """1 at the beginning, falling linearly to 0, and 0 for the last `quiet` share of the phase."""
    return max(0.0, 1 - progress / (1 - quiet)) if quiet < 1 else 0.0


def noisy_choice(temperature: float, noise: float) -> Choose:
    """Straight-through Gumbel-Softmax (Jang et al., arXiv 1611.01144) with the noise scaled by `noise`.

    With noise 1 this is `gumbel_choice(temperature)`. With noise 0 the mask is the threshold path's own (score > 0),
    gradients still flowing: a training that ends there has met its budget on the path that will be used, where
    ending on noisy masks leaves the two apart by all tokens whose score is near 0.
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
