"""A wrong token shows against the tokens' spread, however large a channel that they share."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tofe_export.parity.tokens import RowErrors, TokenDifference, TokenLimits, spread

TOKENS = torch.randn(2, 12, 16, generator=torch.Generator().manual_seed(0))


@given(scale=st.floats(1e-3, 1e3), outlier=st.floats(-2, 2))
def test_neither_scale_nor_a_channel_in_common_hides_a_swap(scale: float, outlier: float) -> None:
    tokens = TOKENS.double()
    tokens[..., 3] = outlier
    order = [1, 0, *range(2, 12)]
    plain, scaled = (RowErrors.of(these, these[:, order]).relative for these in (tokens, tokens * scale))
    assert plain[:, :2].min() > 0.5
    assert plain[:, 2:].max() == 0
    assert torch.allclose(plain, scaled)


def test_a_huge_channel_in_common_hides_a_swap_from_the_largest_difference_alone() -> None:
    tokens = TOKENS.double()
    tokens[..., 3] = 9.0
    rows = RowErrors.of(tokens, tokens[:, [1, 0, *range(2, 12)]])
    assert rows.absolute.max() < 0.5 * tokens.abs().max()
    assert rows.relative[:, :2].min() > 0.5


def test_the_spread_of_one_token_or_of_equal_ones_is_taken_from_their_size() -> None:
    assert spread(torch.ones(1, 1, 4)) == pytest.approx(2.0)
    assert spread(torch.ones(1, 5, 4)) == pytest.approx(2 / 3)
    assert RowErrors.of(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4)).relative.max() == 0


def test_limits_hold_for_kept_and_frozen_tokens_apart() -> None:
    deployed = TOKENS.clone()
    deployed[0, 5] += 1.0
    rows, found = RowErrors.of(TOKENS, deployed), TokenDifference()
    limits = TokenLimits(2.0, 0.1)
    assert limits.exceeded(rows).nonzero().tolist() == [[0, 5]], "its distance alone is too large"
    others = torch.ones(2, 12, dtype=torch.bool)
    others[0, 5] = False
    found.add(rows, others)
    assert limits.hold(found)
    found.add(rows, ~others)
    assert not limits.hold(found)
    assert found.max_abs == pytest.approx(1.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_exceed_every_limit(bad: float) -> None:
    deployed = TOKENS.clone()
    deployed[1, 2, 3] = bad
    rows, found = RowErrors.of(TOKENS, deployed), TokenDifference()
    found.add(rows, torch.ones(2, 12, dtype=torch.bool))
    limits = TokenLimits(1e9, 1e9)
    assert not limits.hold(found)
    assert limits.exceeded(rows).nonzero().tolist() == [[1, 2]]
    assert found.document().to_dict() == {"max_abs": None, "max_relative": None}
