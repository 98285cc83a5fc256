"""Differences of logits, features and tokens, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from tofe_export.parity.metrics import FeaturesDifference, LogitsDifference, cosine_similarity, difference
from tofe_export.parity.tokens import RowErrors, spread

ALONG, ACROSS = [1.0, 0.0], [0.0, 1.0]


@pytest.mark.parametrize("place", [0, 1])
def test_the_least_cosine_is_that_of_the_worst_image_of_a_batch(place: int) -> None:
    reference = torch.tensor([ALONG, ALONG])
    deployed = reference.clone()
    deployed[place] = torch.tensor(ACROSS)
    logits, features = LogitsDifference(), FeaturesDifference()
    logits.add(reference, deployed)
    features.add(reference[:, None], deployed[:, None])
    assert logits.cosine_min == features.cosine_min == 0.0


def test_the_cosine_of_an_image_is_over_all_of_its_tokens() -> None:
    found = FeaturesDifference()
    found.add(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]), torch.tensor([[[3.0, 0.0], [0.0, 0.0]]]))
    assert found.cosine_min == pytest.approx(9 / (5 * 3))
    assert (found.max_abs, found.largest) == (4.0, 4.0)


def test_equal_rows_point_the_same_way_unless_they_are_no_numbers() -> None:
    rows = torch.tensor([[0.0, 0.0], [1e-30, 0.0], [math.inf, 1.0], [-math.inf, math.inf], [math.nan, 1.0]])
    assert cosine_similarity(rows, rows).tolist() == [1.0, 1.0, -1.0, -1.0, -1.0]


def test_what_is_no_number_differs_without_limit() -> None:
    one, other = torch.tensor([[1.0, math.inf, math.nan, 2.0]]), torch.tensor([[3.0, math.inf, 1.0, -math.inf]])
    assert difference(one, other).tolist() == [[2.0, math.inf, math.inf, math.inf]]


def test_errors_of_tokens_by_hand() -> None:
    """Tokens one to either side of 0: their mean is 0 and the spread 1. One is moved by 0.3 and 0.4, so by 0.5."""
    reference = torch.tensor([[ALONG, [-1.0, 0.0]]], dtype=torch.float64)
    deployed = reference.clone()
    deployed[0, 1] += torch.tensor([0.3, -0.4], dtype=torch.float64)
    rows = RowErrors.of(reference, deployed)
    assert spread(reference).tolist() == [[1.0]]
    assert rows.absolute[0].tolist() == pytest.approx([0.0, 0.4])
    assert rows.relative[0].tolist() == pytest.approx([0.0, 0.5])
    assert RowErrors.of(3 * reference, 3 * deployed).relative[0].tolist() == pytest.approx([0.0, 0.5])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_beside_a_token_that_is_no_number_no_other_of_its_image_is_near(bad: float) -> None:
    reference = torch.tensor([[ALONG, [-1.0, 0.0], ACROSS]]).repeat(2, 1, 1)
    reference[1, 0, 1] = bad
    rows = RowErrors.of(reference, reference)
    assert rows.relative.tolist() == [[0.0] * 3, [math.inf] * 3]
    assert rows.absolute.tolist() == [[0.0] * 3, [math.inf, 0.0, 0.0]]


def test_divergence_and_cosine_by_hand() -> None:
    reference, deployed = torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    found = LogitsDifference()
    found.add(reference[:1], deployed[:1])
    found.add(reference[1:], deployed[1:])
    # KL((1/2, 1/2) || (q, 1 - q)) with q = 1 / (1 + e).
    q = 1 / (1 + math.e)
    expected = 0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q))
    assert found.kl_max == pytest.approx(expected)
    assert found.kl_mean == pytest.approx(expected / 2)
    assert found.document().mean_abs == pytest.approx(0.25)
    assert found.cosine_min == pytest.approx(0.0)
    assert found.top1_agreement == 0.5
    assert found.largest == 1.0
