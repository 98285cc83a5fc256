"""Hot blocks: a subject is called again and again, as in a deployment, before another one is.

Alternating single calls would measure something else: the weights of several models do not fit the caches, so that each
call would find its own evicted. A block begins with calls that are not measured; they bring the subject's weights and
buffers back. In each round every subject runs one block, in an order that is drawn anew, so that neither a machine
whose speed drifts nor a place in the order favors anyone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from statistics import median

import numpy as np
from numpy.typing import NDArray

Run = Callable[[], object]
Rounds = tuple[tuple[float, ...], ...]
"""Milliseconds of every measured call, round by round."""
WARM_UP_CALLS = 2
LEAST_CALLS = 5
_MOST_CALLS = 1000
_BLOCK_MS = 10.0  # the calls of a block last at least so long together


@dataclass(frozen=True)
class Timings:
    """Latencies of one subject in one process."""

    rounds_ms: Rounds

    @cached_property
    def medians_ms(self) -> NDArray[np.float64]:
        """Of the block of each round."""
        return np.array([median(block) for block in self.rounds_ms])

    @cached_property
    def calls_ms(self) -> NDArray[np.float64]:
        """Of every measured call."""
        return np.array(list(chain.from_iterable(self.rounds_ms)))

    def percentile_ms(self, q: float) -> float:
        """The q-th percentile (0..100) over all calls."""
        return float(np.percentile(self.calls_ms, q))


def measure(
    subjects: Sequence[Run], rounds: int, seed: Sequence[int] = (0,), on_round: Callable[[], None] = lambda: None
) -> list[Timings]:
    """Times `subjects` in hot blocks, one per round and subject; `on_round` is called after each round.

    `seed` decides the orders; it is that of `numpy.random.default_rng`.
    """
    random = np.random.default_rng(list(seed))
    blocks: list[list[tuple[float, ...]]] = [[] for _ in subjects]
    for _ in range(rounds):
        for which in random.permutation(len(subjects)):
            blocks[which].append(_block(subjects[which]))
        on_round()
    return [Timings(tuple(own)) for own in blocks]


def _block(subject: Run) -> tuple[float, ...]:
    for _ in range(WARM_UP_CALLS):
        subject()
    calls: list[float] = []
    lasted = 0.0
    while len(calls) < LEAST_CALLS or (lasted < _BLOCK_MS and len(calls) < _MOST_CALLS):
        calls.append(time_ms(subject))
        lasted += calls[-1]
    return tuple(calls)


def time_ms(subject: Run) -> float:
    """How long one call takes, in milliseconds."""
    start = time.perf_counter_ns()
    subject()
    return (time.perf_counter_ns() - start) / 1e6
