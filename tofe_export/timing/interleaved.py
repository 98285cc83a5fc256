"""Interleaved timing. In each round every subject runs once, in rotating order, and ratios are taken within the
round, so that a machine whose speed drifts does not favor anyone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Run = Callable[[], object]
_SAMPLE_S = 0.010  # short runs are repeated until a sample lasts this long
_REPEATS_MAX = 20


@dataclass(frozen=True)
class Timings:
    """Latencies of one subject.

    Attributes:
        rounds_ms: median latency within each round, [rounds].
        runs_ms: every timed run.
    """

    rounds_ms: NDArray[np.float64]
    runs_ms: NDArray[np.float64]

    def percentile_ms(self, q: float) -> float:
        """The q-th percentile (0..100) over all runs."""
        return float(np.percentile(self.runs_ms, q))


@dataclass(frozen=True)
class Ratio:
    """Median of the paired ratios baseline / subject, with its 95% bootstrap interval."""

    median: float
    low: float
    high: float


def measure(subjects: Sequence[Run], rounds: int, on_round: Callable[[int], None] = lambda done: None) -> list[Timings]:
    """Times `subjects` in turn.

    Args:
        subjects: functions to time; each is called a few times before anything is recorded.
        rounds: how many rounds.
        on_round: called with the number of rounds done.
    """
    repeats = [_repeats(subject) for subject in subjects]
    samples: list[list[list[float]]] = [[] for _ in subjects]
    for number in range(rounds):
        for place in range(len(subjects)):
            which = (place + number) % len(subjects)
            samples[which].append([_time_ms(subjects[which]) for _ in range(repeats[which])])
        on_round(number + 1)
    return [
        Timings(np.array([np.median(runs) for runs in by_round]), np.array([t for runs in by_round for t in runs]))
        for by_round in samples
    ]


def paired_ratio(baseline: Timings, subject: Timings, resamples: int = 2000) -> Ratio:
    """How many times faster `subject` is than `baseline`, round by round."""
    ratios = baseline.rounds_ms / subject.rounds_ms
    drawn = np.random.default_rng(0).choice(ratios, size=(resamples, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return Ratio(float(np.median(ratios)), float(low), float(high))


def _repeats(subject: Run) -> int:
    for _ in range(2):
        subject()
    return min(_REPEATS_MAX, max(1, math.ceil(_SAMPLE_S * 1e3 / _time_ms(subject))))


def _time_ms(subject: Run) -> float:
    start = time.perf_counter_ns()
    subject()
    return (time.perf_counter_ns() - start) / 1e6
