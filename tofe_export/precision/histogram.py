"""A running histogram of magnitudes, and the range to quantize: minmax, percentile or entropy.

The number of bins is fixed and the range doubles when a larger value comes, so memory does not grow with the data,
whatever comes first. Only magnitudes count: zero points are 0 (all that TensorRT takes), so ranges are symmetric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tofe_export.documents.recipe import Method
from tofe_export.extremes import largest

BINS = 2048
_LEVELS = 128  # magnitudes that 8 bits tell apart
_STEP = 4  # bins between two candidates for the range
_TINY = 1e-9


@dataclass
class Histogram:
    """Counts of |x| in `BINS` equal bins over [0, limit].

    Attributes:
        counts: int64 [BINS].
        limit: upper end of the last bin, 0 before the first value that is not 0; a power of two.
        largest: the greatest |x| so far.
    """

    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    limit: float = 0.0
    largest: float = 0.0

    def add(self, values: NDArray[np.floating]) -> None:
        """Adds values of any shape.

        Raises:
            ValueError: a value is not finite, and would be counted in any bin.
        """
        magnitudes = np.abs(values, dtype=np.float32).ravel()
        top = float(magnitudes.max(initial=0.0))
        if not math.isfinite(top):
            raise ValueError("a histogram takes finite values only")
        self.largest = largest(self.largest, top)
        if top > self.limit:
            self._widen(2.0 ** math.ceil(math.log2(top)))
        if self.limit == 0:
            self.counts[0] += magnitudes.size
            return
        # In float64: of a limit below 2^-117 float32 cannot hold the factor.
        index = np.multiply(magnitudes, BINS / self.limit, dtype=np.float64).astype(np.int32)
        self.counts += np.bincount(np.minimum(index, BINS - 1), minlength=BINS)

    def _widen(self, limit: float) -> None:
        """Both limits are powers of two, so bins merge whole."""
        if self.limit:
            merged = min(int(limit / self.limit), BINS)
            widened = np.zeros(BINS, np.int64)
            widened[: BINS // merged] = self.counts.reshape(-1, merged).sum(1)
            self.counts = widened
        self.limit = limit

    def range(self, method: Method, percentile: float) -> float:
        """The magnitude that the largest 8-bit value stands for; greater ones are clipped.

        Args:
            method: minmax: the greatest magnitude. percentile: that many percent of the values lie
                within. entropy: the least Kullback-Leibler divergence between the values and their 8-bit form, as
                NVIDIA's INT8 calibration chooses it (S. Migacz, "8-bit Inference with TensorRT", GTC 2017).
            percentile: 0..100, for that method alone.
        """
        if method == "minmax" or self.limit == 0:
            return self.largest
        if method == "percentile":
            wanted = math.ceil(int(self.counts.sum()) * percentile / 100)
            bins = int(np.searchsorted(np.cumsum(self.counts), wanted)) + 1
        else:
            bins = _least_divergence(self.counts)
        return min(self.largest, bins * self.limit / BINS)


def _least_divergence(counts: NDArray[np.int64]) -> int:
    """How many of the bins to keep."""
    last = int(np.flatnonzero(counts)[-1]) + 1
    candidates = range(_LEVELS, max(last, _LEVELS) + _STEP, _STEP)
    return min(candidates, key=lambda bins: _divergence(counts, min(bins, BINS)))


def _divergence(counts: NDArray[np.int64], bins: int) -> float:
    kept = counts[:bins].astype(np.float64)
    starts = np.arange(_LEVELS) * bins // _LEVELS
    filled = (kept > 0).astype(np.float64)
    totals, sizes = np.add.reduceat(kept, starts), np.add.reduceat(filled, starts)
    means = np.divide(totals, sizes, out=np.zeros(_LEVELS), where=sizes > 0)
    rounded = np.repeat(means, np.diff([*starts, bins])) * filled
    clipped = kept.copy()
    clipped[-1] += counts[bins:].sum()
    p, q = clipped / clipped.sum(), rounded / max(rounded.sum(), 1.0)
    there = p > 0
    return float((p[there] * np.log(p[there] / np.maximum(q[there], _TINY))).sum())
