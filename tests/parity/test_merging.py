"""What processes found on their shares of the images, merged, is what one finds on all of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tofe_export.parity.metrics import LogitsDifference, NotFinite
from tofe_export.parity.stages import StageDifference
from tofe_export.parity.sums import ExactSum


@given(st.lists(st.floats(0, 1e300), max_size=12), st.integers(1, 4))
def test_sums_do_not_depend_on_who_added_what(values: list[float], parts: int) -> None:
    alone, shares = ExactSum(), [ExactSum() for _ in range(parts)]
    alone.add(torch.tensor(values, dtype=torch.float64))
    for index, share in enumerate(shares):
        share.add(torch.tensor(values[index::parts], dtype=torch.float64))
    first, *others = shares
    for other in others:
        first.merge(other)
    assert float(first) == float(alone)
    assert float(alone) == pytest.approx(math.fsum(values))


def test_a_sum_with_an_infinity_is_infinite() -> None:
    total, other = ExactSum(), ExactSum()
    other.add(torch.tensor([1.0, math.inf]))
    total.merge(other)
    assert float(total) == math.inf


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_logits(parts: int) -> None:
    torch.manual_seed(0)
    reference = torch.randn(11, 5)
    deployed = reference + 0.3 * torch.randn(11, 5)
    labels, names = torch.randint(0, 5, (11,)), [f"{index}.png" for index in range(11)]
    deployed[7, 2], deployed[4, 1] = math.nan, math.inf
    alone, shares = LogitsDifference(), [LogitsDifference() for _ in range(parts)]
    alone.add(reference, deployed, names, labels)
    for index, share in enumerate(shares):
        for row in range(index, 11, parts):
            share.add(reference[row : row + 1], deployed[row : row + 1], names[row : row + 1], labels[row : row + 1])
    first, *others = shares
    for other in others:
        first.merge(other)
    assert replace(first, not_finite=NotFinite()) == replace(alone, not_finite=NotFinite())
    assert first.not_finite.deployed == "4.png", "the first of all"
    assert first.document() == alone.document()


def test_a_process_without_images_changes_nothing() -> None:
    empty, full = StageDifference(0), StageDifference(0)
    scores = torch.tensor([[3.0, 1.0, 2.0]])
    full.add_selection(torch.tensor([[True, False, True]]), torch.tensor([[True, True, False]]))
    full.add_scores(scores, torch.tensor([[0, 1, 2]]), 2, names=["a"])
    full.add_tokens(torch.ones(1, 4, 2), torch.ones(1, 4, 2) + 0.5, torch.tensor([[False, False, False, True]]), ["a"])
    expected = full.document()
    full.merge(StageDifference(0))
    assert full.document() == expected
    empty.merge(full)
    assert empty.document() == expected


def test_of_two_first_images_the_earlier_one_is_named() -> None:
    bad, good = torch.tensor([[math.nan]]), torch.tensor([[0.0]])
    first, second = NotFinite(), NotFinite()
    first.add(torch.cat([good, good, bad]), good.expand(3, 1), ["0", "2", "4"])
    second.add(torch.cat([good, bad]), torch.cat([bad, good]), ["1", "3"])
    first.merge(second)
    assert (first.reference, first.deployed) == ("3", "1")
