"""Interleaved timing. In each round every subject runs once, in rotating order, and ratios are taken within the
round, so that a machine whose speed drifts does not favor anyone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tofe_export.progress import Progress
from tofe_export.runners.base import TimedRunner

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
    """Times `subjects` in turn, each called a few times before; `on_round` gets the number of rounds done."""
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


def time_runners(
    runners: Sequence[TimedRunner],
    image_shape: tuple[int, int, int],
    batch: int,
    rounds: int,
    task: str,
    progress: Progress,
) -> list[tuple[Timings, Ratio]]:
    """Times runners in turn on the same batch of noise; each with its speed-up over the first of them."""
    images = np.random.default_rng(0).standard_normal((batch, *image_shape), dtype=np.float32)
    progress(task, 0, rounds)
    bound = [runner.bind(images) for runner in runners]
    timings = measure(bound, rounds, lambda done: progress(task, done, rounds))
    return [(own, paired_ratio(timings[0], own)) for own in timings]


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
