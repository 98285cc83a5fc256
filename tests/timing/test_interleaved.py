"""The interval against what statistics say of it, without a clock."""

import math

import numpy as np
import pytest

from tofe_export.timing import interleaved as timing
from tofe_export.timing.interleaved import Timings, measure, paired_ratio


def ratio_of(ratios: np.ndarray, resamples: int = 2000) -> timing.Ratio:
    ones = np.ones(len(ratios))
    return paired_ratio(Timings(ratios, ratios), Timings(ones, ones), resamples)


def exact_interval(values: np.ndarray, level: float) -> tuple[float, float]:
    """Quantiles of the bootstrap's medians, without drawing: of an odd number n of values the median of n draws is at
    most the k-th value where more than half of the draws are, which a binomial distribution tells."""
    ordered, n = np.sort(values), len(values)

    def at_most(k: int) -> float:
        p = k / n
        return sum(math.comb(n, j) * p**j * (1 - p) ** (n - j) for j in range((n + 1) // 2, n + 1))

    ends = [next(k for k in range(1, n + 1) if at_most(k) >= q) for q in ((1 - level) / 2, (1 + level) / 2)]
    return float(ordered[ends[0] - 1]), float(ordered[ends[1] - 1])


@pytest.mark.parametrize("rounds", [7, 15, 31])
def test_the_interval_is_the_middle_95_percent_of_the_medians(rounds: int) -> None:
    ratios = np.sort(np.random.default_rng(rounds).lognormal(0, 1, rounds))
    ratio = ratio_of(ratios, 20_000)
    assert (ratio.low, ratio.high) == exact_interval(ratios, 0.95)
    assert ratio.median == ratios[rounds // 2]
    # The test itself tells 95% from its neighbours.
    assert exact_interval(ratios, 0.95) != exact_interval(ratios, 0.5)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Of 400 skewed samples, whose mean lies far from their median, about 380 intervals hold the true median, 1."""
    random = np.random.default_rng(0)
    ratios = [ratio_of(random.lognormal(0, 1, 31), 300) for _ in range(400)]
    covered = sum(ratio.low <= 1 <= ratio.high for ratio in ratios)
    assert 368 <= covered <= 394


def test_a_ratio_is_the_baseline_s_time_by_the_subject_s_within_each_round() -> None:
    baseline, subject = np.array([2.0, 40.0, 6.0]), np.array([1.0, 10.0, 2.0])
    ratio = paired_ratio(Timings(baseline, baseline), Timings(subject, subject))
    assert ratio.median == 3.0, "2, 4 and 3; not 6 / 2 of the medians, nor the mean of all"
    assert paired_ratio(Timings(subject, subject), Timings(baseline, baseline)).median == pytest.approx(1 / 3)


def test_a_round_is_the_median_of_its_runs_and_a_short_run_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([4.0, 1.0, 9.0, 2.0, 30.0, 3.0, 5.0])  # the first decides: 10 ms hold three runs of 4
    monkeypatch.setattr(timing, "_time_ms", lambda subject: next(times))
    calls: list[int] = []
    (timings,) = measure([lambda: calls.append(0)], rounds=2)
    assert timings.rounds_ms.tolist() == [2.0, 5.0]
    assert timings.runs_ms.tolist() == [1.0, 9.0, 2.0, 30.0, 3.0, 5.0]
    assert timings.percentile_ms(50) == 4.0
    assert timings.percentile_ms(90) == pytest.approx(19.5)
    assert len(calls) == 2, "called twice before anything is timed"


@pytest.mark.parametrize(("once_ms", "repeats"), [(0.001, 20), (0.6, 17), (10.0, 1), (500.0, 1)])
def test_how_often_a_run_is_repeated(once_ms: float, repeats: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_time_ms", lambda subject: once_ms)
    (timings,) = measure([lambda: None], rounds=1)
    assert len(timings.runs_ms) == repeats
