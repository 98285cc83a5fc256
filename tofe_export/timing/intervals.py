"""How many times faster one subject is than another, and how sure that is: over processes, not within one.

Within a process the ratio is the median over rounds of (baseline's block / own block), each a median of calls. One
process gives one ratio. What differs from process to process is in no round of a single one, so an interval from its
rounds would be too narrow, however many there are; with one process there is none.

Over processes it is the geometric mean with Student's t interval of the logarithms. The mean and not the median,
because with few processes a median would throw most of them away, and because the mean always lies in its own interval,
which is also what the gate tests. A process that is far off widens the interval, as it should.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr, stdtrit

from tofe_export.timing.blocks import Timings

_LEVEL = 0.95
_NORMAL = 1.959964  # half the width of a 95% interval of a normal distribution, in standard deviations
_WIDEST = 20.0  # of half an interval of logarithms: a factor of 10⁸, which documents can still hold
_MANY = 1e9  # degrees of freedom, with which t is normal


@dataclass(frozen=True)
class Ratio:
    """A speed-up, with its 95% interval where there are several processes, and that of each process."""

    value: float
    low: float | None
    high: float | None
    by_process: tuple[float, ...]


@dataclass(frozen=True)
class LogMean:
    """The mean logarithm of a speed-up, the variance of that mean, and its degrees of freedom."""

    mean: float
    variance: float
    freedom: float


def ratio_within(baseline: Timings, own: Timings) -> float:
    """How many times faster `own` is than `baseline` in one process, round by round."""
    return float(np.median(baseline.medians_ms / own.medians_ms))


def speedup(baseline: Sequence[Timings], own: Sequence[Timings]) -> Ratio:
    """How many times faster `own` is than `baseline`; each has its timings of the same processes."""
    return over_processes([ratio_within(*pair) for pair in zip(baseline, own, strict=True)])


def over_processes(ratios: Sequence[float]) -> Ratio:
    """The geometric mean of a ratio per process, and its interval; see the head of this file."""
    center = log_mean(ratios)
    if center is None:
        return Ratio(ratios[0], None, None, tuple(ratios))
    reach = min(_WIDEST, float(stdtrit(center.freedom, (1 + _LEVEL) / 2)) * math.sqrt(center.variance))
    value, low, high = (math.exp(center.mean + by) for by in (0.0, -reach, reach))
    return Ratio(value, low, high, tuple(ratios))


def log_mean(ratios: Sequence[float]) -> LogMean | None:
    """Of a ratio per process; None where they are too few to know how they spread."""
    if len(ratios) < 2:
        return None
    logs = np.log(ratios)
    return LogMean(float(logs.mean()), float(logs.var(ddof=1)) / len(logs), len(logs) - 1)


def log_mean_of_interval(value: float, low: float, high: float) -> LogMean:
    """What a 95% interval says where the ratios behind it are not known, as if it were one of many."""
    return LogMean(math.log(value), (math.log(high / low) / 2 / _NORMAL) ** 2, _MANY)


def chance_of_fall(old: LogMean, new: LogMean) -> float:
    """How probable so low a new mean is where nothing has changed, by Welch's t test, one-sided."""
    variance = old.variance + new.variance
    fall = new.mean - old.mean
    if variance == 0:
        return 0.0 if fall < 0 else 1.0
    freedom = variance**2 / (old.variance**2 / old.freedom + new.variance**2 / new.freedom)
    return float(stdtr(freedom, fall / math.sqrt(variance)))
