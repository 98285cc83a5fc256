"""What is worth trying, and what is taken."""

from itertools import product
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tofe_export.documents.tuning import Step, TunedCounts, TuneSettings
from tofe_export.tuning.latency import LatencyModel
from tofe_export.tuning.search import finalists, front, meets, pick, stage_counts, with_front

TOKENS = 32
LINEAR = LatencyModel(1.0, (1.0, 1.0), tuple(float(count) for count in range(1, TOKENS + 1)))
LOST = tuple(tuple((1 - count / TOKENS) ** power for count in range(TOKENS + 1)) for power in (2, 1))


def goal(**which: Any) -> TuneSettings:
    shared = {"target": "onnxruntime", "batch": 1, "threads": 1, "processes": 2, "rounds": 1, "data": "photos"}
    return TuneSettings(samples=8, **shared, **which)


def tried(keep: int, ms: float, score: float, **fields: Any) -> TunedCounts:
    return TunedCounts(
        keep=(keep,), macs_ratio=keep / 64, predicted_ms=ms, ms=ms, speedup=20 / ms, agreement=score, **fields
    )


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_nothing_beats_the_front_and_the_front_beats_the_rest(points: list[tuple[int, int]]) -> None:
    costs, losses = [float(a) for a, _ in points], [float(b) for _, b in points]
    best = front(costs, losses)
    chosen = [points[place] for place in best]
    for point in points:
        assert any(a <= point[0] and b <= point[1] for a, b in chosen)
    for one, other in product(chosen, chosen):
        assert one == other or not (one[0] <= other[0] and one[1] <= other[1])
    assert [cost for cost, _ in chosen] == sorted({cost for cost, _ in chosen})


def chosen(settings: TuneSettings, falling: bool = False, wanted: int = 6) -> tuple[TunedCounts, ...]:
    counts = [4, 8, 12, 16, 20, 24, 28, 32]
    return finalists(counts, LINEAR, LOST, falling, lambda keep: sum(keep) / 64, settings, 65.0, wanted)


@pytest.mark.parametrize(
    ("settings", "limit_ms"), [(goal(speedup=2.0), 32.5), (goal(latency_ms=20.0), 20.0), (goal(macs=0.5), 33.0)]
)
def test_finalists_lie_at_the_goal_and_along_the_front(settings: TuneSettings, limit_ms: float) -> None:
    found = chosen(settings)
    assert len(found) == 6
    within = [one for one in found if one.predicted_ms <= limit_ms * 1.05]
    assert max(one.predicted_ms for one in within) > limit_ms - 6  # a step of the counts
    assert max(one.predicted_ms for one in found) > limit_ms
    assert sum(one.predicted_ms <= limit_ms for one in found) >= 3
    # By brute force: none of all combinations is cheaper and loses less.
    for one in found:
        lost = sum(row[count] for row, count in zip(LOST, one.keep, strict=True))
        for keep in product(range(4, 33, 4), repeat=2):
            other = sum(row[count] for row, count in zip(LOST, keep, strict=True))
            assert LINEAR.predict_ms(keep) >= one.predicted_ms or other >= lost


def test_counts_do_not_rise_where_tokens_are_discarded() -> None:
    assert all(one.keep[0] >= one.keep[1] for one in chosen(goal(speedup=2.0), falling=True))
    assert any(one.keep[0] < one.keep[1] for one in chosen(goal(speedup=2.0)))


def test_a_goal_that_nothing_is_predicted_to_meet_leaves_the_cheapest() -> None:
    assert (4, 4) in {one.keep for one in chosen(goal(latency_ms=0.5))}


def test_the_best_score_that_meets_the_goal_is_taken_as_timed_and_not_as_predicted() -> None:
    candidates = [tried(8, 6.0, 0.8), tried(12, 8.0, 0.9), tried(16, 10.0, 0.9), tried(20, 12.0, 0.95)]
    assert pick(candidates, goal(latency_ms=10.0)).keep == (12,)  # of equal scores the faster
    assert pick(candidates, goal(speedup=1.5)).keep == (20,)
    assert pick(candidates, goal(macs=0.2)).keep == (12,)
    nearest = pick(candidates, goal(latency_ms=1.0))
    assert nearest.keep == (8,)
    assert not meets(nearest, goal(latency_ms=1.0))


def test_accuracy_goes_before_agreement() -> None:
    candidates = [tried(8, 6.0, 0.99, accuracy=0.5), tried(12, 8.0, 0.9, accuracy=0.6)]
    assert pick(candidates, goal(latency_ms=10.0)).keep == (12,)
    assert [one.on_front for one in with_front(candidates)] == [True, True]


def test_the_front_is_of_what_was_timed() -> None:
    candidates = [tried(8, 6.0, 0.8), tried(12, 8.0, 0.7), tried(16, 10.0, 0.9)]
    assert [one.on_front for one in with_front(candidates)] == [True, False, True]


def test_many_efficient_counts_are_thinned_and_the_ends_stay() -> None:
    steps = [Step(count=count, ms=1.0, efficient=count % 2 == 0) for count in range(1, 197)]
    counts = stage_counts(steps, 3)
    assert (counts[0], counts[-1], len(counts)) == (2, 196, 16)
    assert all(count % 2 == 0 for count in counts)


@pytest.mark.parametrize("stages", [1, 3, 4, 5, 8, 23])
def test_the_combinations_of_many_stages_stay_few(stages: int) -> None:
    steps = [Step(count=count, ms=1.0, efficient=True) for count in range(1, 197)]
    counts = stage_counts(steps, stages)
    assert (counts[0], counts[-1]) == (1, 196)
    lost = tuple(tuple(1 - count / 196 for count in range(197)) for _ in range(stages))
    model = LatencyModel(1.0, (1.0,) * stages, tuple(float(count) for count in range(1, 197)))
    asked: list[object] = []
    found = finalists(
        counts,
        model,
        lost,
        False,
        lambda keep: asked.append(keep) or sum(keep),
        goal(macs=0.5),
        65.0,
        6,  # type: ignore[func-returns-value]
    )
    assert found
    assert len(asked) <= 1 << 17
