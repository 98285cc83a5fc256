"""Running maxima and minima that a NaN cannot hide from: of 0.0 and NaN, Python's `max` and `min` return 0.0."""

from __future__ import annotations

import math


def largest(*values: float) -> float:
    """The greatest of one or more values; NaN where any of them is NaN."""
    return math.nan if any(map(math.isnan, values)) else max(values)


def least(*values: float) -> float:
    """The least of one or more values; NaN where any of them is NaN."""
    return math.nan if any(map(math.isnan, values)) else min(values)


def scaled(limit: float, size: float) -> float:
    """`limit`, relative to `size` beyond 1; a size that is not finite scales nothing, or it would allow everything."""
    return limit * max(1.0, size) if math.isfinite(size) else limit
