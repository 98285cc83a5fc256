"""Ranking by counting, which is what `torch.export` sees, against the stable sort."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.edge.operators import Both, hostile_scores
from tofe_export.model.operators import rank_tokens, scatter_rearrange, token_partition

COUNT = 6
_values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1e-45, math.inf, -math.inf, math.nan]) | st.floats(width=32)


@pytest.fixture(scope="module")
def exported() -> nn.Module:
    """Both operators for six tokens of which two are kept."""
    example = torch.zeros(1, 1 + COUNT, 3), torch.zeros(1, COUNT)
    program = torch.export.export(Both(keep=2), example)
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("sort" in name or "topk" in name or "scatter" in name for name in called)
    return program.module()


@given(st.lists(_values, min_size=COUNT, max_size=COUNT))
def test_the_same_ranks_and_rows(exported: nn.Module, row: list[float]) -> None:
    scores = torch.tensor([row], dtype=torch.float32)
    tokens = torch.arange(3.0 * (1 + COUNT)).view(1, 1 + COUNT, 3)
    kept, frozen, perm, back = exported(tokens, scores)
    expected = token_partition(tokens, scores, 2, 1)
    for found, wanted in zip((kept, frozen, perm), expected, strict=True):
        assert found.dtype == wanted.dtype
        assert torch.equal(found, wanted)
    assert torch.equal(back, scatter_rearrange(*expected, 1))
    assert torch.equal(back, tokens)


@given(batch=st.integers(1, 3), count=st.integers(1, 40), values=st.integers(1, 5), seed=st.integers(0, 99))
def test_many_ties(batch: int, count: int, values: int, seed: int) -> None:
    from tofe_export.model import operators

    scores = torch.randint(values, (batch, count), generator=torch.Generator().manual_seed(seed)).float()
    assert torch.equal(operators._inverse(operators._ranks(scores)), rank_tokens(scores))
    perm = torch.stack([torch.randperm(count) for _ in range(batch)]).int()
    assert torch.equal(operators._inverse(perm).long(), perm.long().argsort(dim=1))


def test_hostile_scores_tell_orders_apart() -> None:
    """Else the tests in the runtimes would say nothing."""
    scores: Tensor = hostile_scores()
    flipped = scores.flip(1)  # the higher index first among equals
    wrong = scores.shape[1] - 1 - rank_tokens(flipped)
    assert (rank_tokens(scores) != wrong).any(dim=1)[~scores.isnan().any(dim=1)].sum() >= 3
