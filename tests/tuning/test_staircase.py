"""The right ends of a staircase's steps are found, and a real product's latency never falls with more rows."""

from itertools import pairwise

import numpy as np
import pytest

from tofe_export.documents.fields import Target
from tofe_export.progress import silent
from tofe_export.tuning.staircase import efficient, measure_staircase

COUNTS = list(range(1, 49))


def test_full_tiles_are_efficient_and_nothing_else() -> None:
    """A tile of 8 rows costs 1 ms however many of its rows are used; one row is a prefix."""
    ms = [float(-(-(count + 1) // 8)) for count in COUNTS]
    good = [count for count, fine in zip(COUNTS, efficient(COUNTS, ms), strict=True) if fine]
    assert [count for count in good if count != 48] == [7, 15, 23, 31, 39, 47]


def test_where_there_are_no_steps_every_count_is_efficient() -> None:
    assert efficient(COUNTS, [0.5 + 0.1 * count for count in COUNTS]).all()


def test_a_dear_count_between_cheap_ones_is_not_efficient() -> None:
    ms = [float(count) for count in COUNTS]
    ms[20] += 10
    assert np.flatnonzero(~efficient(COUNTS, ms)).tolist() == [20]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_a_real_staircase_has_a_step_for_each_count(target: Target) -> None:
    steps = measure_staircase(32, 9, 1, 2, target, 1, silent)
    assert [step.count for step in steps] == list(range(1, 10))
    assert all(first.ms <= second.ms for first, second in pairwise(steps))
    assert steps[-1].efficient
