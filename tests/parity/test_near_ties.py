"""Another choice of tokens passes where scores are nearly equal and only there; margins by hand."""

import pytest
import torch

from tofe_export.parity.comparison import Comparison
from tofe_export.parity.stages import StageDifference
from tofe_export.parity.tolerances import TOLERANCES


def test_another_choice_passes_only_as_a_near_tie() -> None:
    scores = torch.tensor([[0.5, 0.4, 0.4 - 1e-6, -1.0]])
    tie, wrong = StageDifference(0), StageDifference(0)
    tie.add_scores(scores, torch.tensor([[0, 2, 1, 3]]), 2)
    wrong.add_scores(scores, torch.tensor([[0, 3, 1, 2]]), 2)
    assert 0 < tie.score_gap < 1e-5
    assert wrong.score_gap == pytest.approx(1.4)
    comparison = Comparison(TOLERANCES["fp32"], stages={0: tie})
    for stage in (tie, wrong):
        mask = torch.ones(1, 4, dtype=torch.bool)
        stage.add_selection(mask, mask)
        comparison.logits.add(torch.zeros(1, 2), torch.zeros(1, 2))
        comparison.same_selection.add(torch.zeros(1, 2), torch.zeros(1, 2))
    assert not comparison.failures
    comparison.stages[0] = wrong
    assert "a kept token's score is 1.4e+00 below a frozen one's" in comparison.failures[0]


def chose(kept: list[list[int]], score_scale: float = 1.0) -> Comparison:
    """Images whose deployed model kept the tokens `kept`, where PyTorch keeps token 0; token 1 scores a hair less."""
    stage = StageDifference(0)
    scores = torch.tensor([[0.5, 0.5 - 1e-6, 0.4, -1.0]]) * score_scale
    for tokens in kept:
        reference, deployed = torch.zeros(2, 1, 4, dtype=torch.bool)
        reference[0, 0], deployed[0, tokens] = True, True
        perm = torch.tensor([tokens + [index for index in range(4) if index not in tokens]])
        stage.add_selection(reference, deployed)
        stage.add_scores(scores, perm, len(tokens))
    return Comparison(TOLERANCES["fp32"], min(1.0, score_scale), samples=len(kept), stages={0: stage})


def test_one_near_tie_among_few_tokens_passes() -> None:
    # One flip of one kept token is an overlap of 0, whatever the tolerance says; a thousand tokens could have one.
    found = chose([[1]])
    assert found.stages[0].overlap == 0
    assert not found.failures
    assert not chose([[0], [1], [0]]).failures


def test_two_near_ties_among_few_tokens_fail() -> None:
    (sentence,) = chose([[1], [1], [0]]).failures
    assert "Stage 0 selected other tokens: overlap 0.3333" in sentence


def test_one_flip_beyond_the_score_gap_fails() -> None:
    (sentence,) = chose([[0], [2], [0]]).failures
    assert "a kept token's score is 1.0e-01 below a frozen one's" in sentence


def test_of_many_tokens_the_tolerated_share_may_flip() -> None:
    assert not chose([[1]] * 2 + [[0]] * 1998).failures
    assert chose([[1]] * 3 + [[0]] * 1997).failures


def test_attention_weights_are_judged_by_their_own_size() -> None:
    # Weights of attention are far below 1: a gap of 1e-5 is a near-tie of scores about 1, not of weights about 1e-4.
    assert not chose([[1]], score_scale=1e-4).failures
    small = chose([[2]], score_scale=1e-4)
    assert small.stages[0].score_gap == pytest.approx(1e-5, rel=1e-3)
    assert small.failures
    small.score_scale = 1.0
    assert not small.failures


def test_margins_by_hand() -> None:
    """Scores 5, 4, 3, 2, of which two are kept; the deployed model takes the last for the second."""
    stage = StageDifference(0)
    stage.add_scores(torch.tensor([[5.0, 4.0, 3.0, 2.0]]), torch.tensor([[0, 3, 1, 2]]), 2)
    assert stage.margins == [1.0, 2.0], "4 less 3, the best that is not kept; 4, the least that is, less 2"
    assert (stage.score_gap, stage.images_flipped, stage.largest_score) == (2.0, 1, 5.0)
    stage.add_scores(torch.tensor([[5.0, 4.0, 3.0, 2.0]]), torch.tensor([[1, 0, 3, 2]]), 2)
    assert (stage.score_gap, stage.images_flipped, len(stage.margins)) == (2.0, 1, 2)
    assert stage.document().flips.to_dict() == {"tokens": 2, "images": 1, "margin_median": 1.5, "margin_max": 2.0}
