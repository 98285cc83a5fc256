"""Which keep counts are worth trying, and which of those that were tried to take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement, product

import numpy as np

from tofe_export.documents.tuning import Step, TunedCounts, TuneSettings
from tofe_export.tuning.latency import LatencyModel

_PER_STAGE = 16  # counts that are combined
_MOST_COMBINATIONS = 1 << 16
_MOST_STAGES = 16  # beyond which only counts that fall are combined
_SPREAD = 3  # finalists that show the front away from the goal
_SLACK = 0.04  # how far above the goal one prediction may lie, for it is not exact


def stage_counts(staircase: Sequence[Step], stages: int) -> list[int]:
    """Efficient counts, evenly spread where they are many; the fewer, the more stages combine them."""
    good = [step.count for step in staircase if step.efficient]
    wanted = max(2, min(_PER_STAGE, int(_MOST_COMBINATIONS ** (1 / stages) + 1e-9), len(good)))
    places = np.unique(np.linspace(0, len(good) - 1, wanted).round().astype(int))
    return [good[place] for place in places]


def front(costs: Sequence[float], losses: Sequence[float]) -> list[int]:
    """Places of the points that no other one beats in both, the cheapest first; of equal ones the first."""
    best, chosen = np.inf, []
    for place in sorted(range(len(costs)), key=lambda index: (costs[index], losses[index])):
        if losses[place] < best:
            best = losses[place]
            chosen.append(place)
    return chosen


def finalists(
    counts: Sequence[int],
    model: LatencyModel,
    lost: Sequence[Sequence[float]],
    falling: bool,
    macs_ratio: Callable[[Sequence[int]], float],
    settings: TuneSettings,
    dense_ms: float,
    wanted: int,
) -> tuple[TunedCounts, ...]:
    """The front by prediction, as many of it as are `wanted`: those nearest to the goal, and some along the rest.

    Args:
        counts: that each stage may have.
        model: predicts latency.
        lost: per stage, over 0..N kept tokens, the share of the tokens that matter and are not kept.
        falling: counts must not rise from stage to stage.
        macs_ratio: of keep counts, to the dense backbone.
        settings: with the goal.
        dense_ms: latency of the dense backbone.
        wanted: how many.
    """
    vectors = _combined(counts, len(lost), falling or len(lost) > _MOST_STAGES)
    cost = macs_ratio if settings.macs is not None else model.predict_ms
    costs = [cost(keep) for keep in vectors]
    losses = [sum(by_count[count] for by_count, count in zip(lost, keep, strict=True)) for keep in vectors]
    best = front(costs, losses)
    limit = goal_cost(settings, dense_ms)
    within = [place for place in best if costs[place] <= limit]
    above = [place for place in best[len(within) :] if costs[place] <= limit * (1 + _SLACK)]
    if settings.macs is not None:  # counted, not predicted
        above = []
    near = [*within[-max(1, wanted - _SPREAD - len(above[:1])) :], *above[:1]]
    rest = [place for place in best if place not in near]
    spread = rest[:: max(1, -(-len(rest) // _SPREAD))] if rest else []
    chosen = sorted({*near, *spread[: max(0, wanted - len(near))]} or {best[0]})
    return tuple(
        TunedCounts(keep=vectors[p], macs_ratio=macs_ratio(vectors[p]), predicted_ms=model.predict_ms(vectors[p]))
        for p in chosen
    )


def goal_cost(settings: TuneSettings, dense_ms: float) -> float:
    """The most that keep counts may cost: milliseconds, or a share of multiply-accumulates where that is the goal."""
    if settings.macs is not None:
        return settings.macs
    if settings.latency_ms is not None:
        return settings.latency_ms
    assert settings.speedup is not None
    return dense_ms / settings.speedup


def meets(candidate: TunedCounts, settings: TuneSettings) -> bool:
    """Whether counts that were timed meet the goal."""
    if settings.macs is not None:
        return candidate.macs_ratio <= settings.macs
    if settings.latency_ms is not None:
        return candidate.ms is not None and candidate.ms <= settings.latency_ms
    assert settings.speedup is not None
    return candidate.speedup is not None and candidate.speedup >= settings.speedup


def with_front(candidates: Sequence[TunedCounts]) -> tuple[TunedCounts, ...]:
    """Marks those that no other one beats in latency and score."""
    best = front([one.ms or np.inf for one in candidates], [-one.score for one in candidates])
    return tuple(one.replaced(on_front=place in best) for place, one in enumerate(candidates))


def pick(candidates: Sequence[TunedCounts], settings: TuneSettings) -> TunedCounts:
    """The best score that meets the goal, the fastest of equal ones; where none does, the fastest (cheapest) one."""
    fitting = [one for one in candidates if meets(one, settings)]
    if fitting:
        return min(fitting, key=lambda one: (-one.score, one.ms or np.inf))
    if settings.macs is not None:
        return min(candidates, key=lambda one: one.macs_ratio)
    return min(candidates, key=lambda one: one.ms or np.inf)


def _combined(counts: Sequence[int], stages: int, falling: bool) -> list[tuple[int, ...]]:
    if falling:
        return sorted(combinations_with_replacement(sorted(counts, reverse=True), stages))
    return list(product(counts, repeat=stages))
