"""The interval against what statistics say of it, without a clock."""

import math

import numpy as np
import pytest

from tests.timing import simulation
from tofe_export.timing.blocks import Timings
from tofe_export.timing.intervals import LogMean, chance_of_fall, over_processes, ratio_within, speedup

T_95 = {2: 12.706, 3: 4.303, 5: 2.776, 30: 2.045}  # Student's t, from a printed table, by the number of values


def timings(*rounds: float) -> Timings:
    return Timings(tuple((value,) for value in rounds))


def test_a_ratio_is_taken_within_each_round() -> None:
    assert ratio_within(timings(2, 40, 6), timings(1, 10, 2)) == 3.0, "2, 4 and 3; not 6 / 2, nor the mean of all"
    drift = np.linspace(1, 5, 31)
    assert ratio_within(timings(*(2 * drift)), timings(*drift)) == pytest.approx(2)


def test_a_subject_may_be_compared_with_any_other() -> None:
    first, second = [timings(2, 2), timings(4, 4)], [timings(1, 1), timings(1, 1)]
    assert speedup(first, second).by_process == (2, 4)
    assert speedup(second, first).by_process == (0.5, 0.25)
    itself = speedup(first, first)
    assert (itself.value, itself.low, itself.high) == (1, 1, 1)


@pytest.mark.parametrize("number", T_95)
def test_the_interval_is_students(number: int) -> None:
    ratios = np.random.default_rng(number).lognormal(0.5, 0.1, number)
    ratio = over_processes(list(ratios))
    reach = T_95[number] * np.log(ratios).std(ddof=1) / math.sqrt(number)
    assert ratio.value == pytest.approx(np.exp(np.log(ratios).mean()))
    assert ratio.low == pytest.approx(ratio.value * math.exp(-reach), rel=1e-4)
    assert ratio.high == pytest.approx(ratio.value * math.exp(reach), rel=1e-4)


def test_an_interval_is_finite_however_much_two_processes_differ() -> None:
    ratio = over_processes([1e-3, 1e3])
    assert ratio.low is not None
    assert ratio.high is not None
    assert 0 < ratio.low < 1 < ratio.high < 1e12, "what documents hold"


def test_one_process_has_no_interval() -> None:
    ratio = over_processes([1.7])
    assert (ratio.value, ratio.low, ratio.high, ratio.by_process) == (1.7, None, None, (1.7,))


def within_one_process(random: np.random.Generator) -> tuple[float, float]:
    """What this program did before: a bootstrap over 30 rounds of one process."""
    rounds = 30
    place = random.normal(0, simulation.PROCESS_SD)
    noise = random.normal(0, simulation.BLOCK_SD, (2, rounds))
    ratios = np.exp(place + noise[0] - noise[1])
    medians = np.median(random.choice(ratios, (300, rounds)), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def test_the_interval_covers_what_another_day_would_show_and_that_of_one_process_does_not() -> None:
    random, runs = np.random.default_rng(0), 400
    # What many processes would show: those that are slow by chance are part of it.
    truth = 1.8 * math.exp(-2 * simulation.PROCESS_SD * simulation.SLOW_CHANCE)
    measured = [simulation.run(random, 1.8) for _ in range(runs)]
    covered = np.mean(
        [one.low <= truth <= one.high for one in measured if one.low is not None and one.high is not None]
    )
    assert covered >= 0.9
    before = [within_one_process(random) for _ in range(runs)]
    assert np.mean([low <= 1 <= high for low, high in before]) < 0.8


def test_a_fall_is_as_probable_as_welch_says() -> None:
    """Against the distribution itself: two runs of the same model, of which the spreads differ."""
    random, chances = np.random.default_rng(0), []
    for _ in range(2000):
        old, new = random.normal(0, 0.01, 5), random.normal(0, 0.03, 5)
        chances.append(chance_of_fall(mean_of(old), mean_of(new)))
    for level in (0.01, 0.05, 0.5):
        assert np.mean(np.array(chances) < level) == pytest.approx(level, abs=3 * math.sqrt(level / 2000))
    assert chance_of_fall(LogMean(1.0, 0.0, 4), LogMean(0.9, 0.0, 4)) == 0
    assert chance_of_fall(LogMean(1.0, 0.0, 4), LogMean(1.0, 0.0, 4)) == 1


def mean_of(logs: np.ndarray) -> LogMean:
    return LogMean(float(logs.mean()), float(logs.var(ddof=1)) / len(logs), len(logs) - 1)
