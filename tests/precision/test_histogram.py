"""Ranges from running histograms, whatever order and portions the values come in."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tofe_export.documents.recipe import METHODS
from tofe_export.precision.histogram import BINS, Histogram


def filled(*portions: np.ndarray) -> Histogram:
    histogram = Histogram()
    for portion in portions:
        histogram.add(portion)
    return histogram


finite = st.floats(min_value=-(2.0**99), max_value=2.0**99, width=32)
arrays = hnp.arrays(np.float32, st.integers(1, 30), elements=finite)


@given(st.lists(arrays, min_size=1, max_size=6), st.randoms())
def test_portions_and_order_do_not_matter(portions: list[np.ndarray], random) -> None:  # type: ignore[no-untyped-def]
    shuffled = list(portions)
    random.shuffle(shuffled)
    first, second, whole = filled(*portions), filled(*shuffled), filled(np.concatenate(portions))
    for other in (second, whole):
        assert (first.limit, first.largest) == (other.limit, other.largest)
        assert np.array_equal(first.counts, other.counts)
    assert first.counts.sum() == sum(portion.size for portion in portions)
    assert first.counts.shape == (BINS,)


@given(arrays)
def test_no_range_exceeds_the_greatest_magnitude(values: np.ndarray) -> None:
    histogram = filled(values)
    largest = float(np.abs(values).max())
    assert histogram.range("minmax", 100) == largest
    for method in METHODS:
        assert 0 <= histogram.range(method, 99.9) <= largest


@pytest.mark.parametrize("percentile", [90.0, 99.0, 99.99, 100.0])
def test_percentile_is_numpys_to_one_bin(percentile: float) -> None:
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    histogram = filled(*np.split(values, 10))
    exact = np.percentile(np.abs(values), percentile)
    assert exact <= histogram.range("percentile", percentile) + 1e-6 <= exact + 2 * histogram.limit / BINS


def test_entropy_clips_an_outlier_and_keeps_what_is_spread_evenly() -> None:
    generator = np.random.default_rng(0)
    bell = generator.standard_normal(200_000).astype(np.float32)
    assert filled(bell, np.array([40.0], np.float32)).range("entropy", 0) < 10
    even = generator.uniform(-1, 1, 200_000).astype(np.float32)
    assert filled(even).range("entropy", 0) == pytest.approx(1, abs=0.01)


def test_zeros_have_no_range() -> None:
    histogram = filled(np.zeros((3, 4), np.float32))
    assert [histogram.range(method, 99) for method in METHODS] == [0, 0, 0]
    histogram.add(np.full(2, 0.5, np.float32))
    assert histogram.counts.sum() == 14
    assert histogram.range("minmax", 99) == 0.5


@given(st.lists(finite), st.sampled_from([math.nan, math.inf, -math.inf]), st.integers(0, 30), st.booleans())
def test_what_is_not_finite_is_refused_and_changes_nothing(
    values: list[float], bad: float, at: int, before: bool
) -> None:
    histogram = Histogram()
    if before:
        histogram.add(np.array([1.5, 3.0], np.float32))
    kept = (histogram.counts.copy(), histogram.limit, histogram.largest)
    planted = [*values[: at % (len(values) + 1)], bad, *values[at % (len(values) + 1) :]]
    with pytest.raises(ValueError, match="finite values only"):
        histogram.add(np.array(planted, np.float32))
    assert np.array_equal(histogram.counts, kept[0])
    assert (histogram.limit, histogram.largest) == kept[1:]


@pytest.mark.parametrize("exponent", [-149, -126, -118, -117, 0, 127])
def test_magnitudes_of_any_float32_are_told_apart(exponent: int) -> None:
    """A quarter of the greatest lies in the bin that begins there, be it the least float32 there is or nearly so."""
    top = math.ldexp(1.0, exponent)
    least = math.ldexp(1.0, max(exponent - 2, -149))
    histogram = filled(np.array([0, least, -top], np.float32))
    assert histogram.limit == histogram.largest == top
    assert np.flatnonzero(histogram.counts).tolist() == sorted({0, min(int(least / top * BINS), BINS - 1), BINS - 1})
    assert histogram.counts.sum() == 3


@pytest.mark.parametrize(("percentile", "top"), [(50.1, 0.75), (60, 0.75), (75, 0.75), (75.1, 1.0), (100, 1.0)])
def test_a_percentile_counts_so_many_of_few_values(percentile: float, top: float) -> None:
    histogram = filled(np.array([0.25, -0.5, 0.75, -1.0], np.float32))
    assert top <= histogram.range("percentile", percentile) <= top + 1 / BINS


def test_entropy_keeps_the_128_bins_that_hold_all_but_an_outlier() -> None:
    """With as many bins as 8 bits have magnitudes nothing is lost; fewer clip some, and more are averaged."""
    counts = np.tile([500, 1500], 64)
    levels = np.repeat((np.arange(128, dtype=np.float32) + 0.5) / BINS, counts)
    assert filled(levels, np.ones(1, np.float32)).range("entropy", 0) == 128 / BINS
