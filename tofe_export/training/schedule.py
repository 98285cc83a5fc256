"""What changes over a phase: learning rate, Gumbel temperature and noise. Pure functions of progress."""

from __future__ import annotations

import math


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
