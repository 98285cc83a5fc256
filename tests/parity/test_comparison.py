"""Each limit of a comparison holds just below its value and not just above it."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from tofe_export.parity.comparison import Comparison
from tofe_export.parity.metrics import LogitsDifference
from tofe_export.parity.stages import StageDifference
from tofe_export.parity.tolerances import TOLERANCES, Tolerance, tolerance_of

AROUND = pytest.mark.parametrize(("factor", "passes"), [(0.9, True), (1.1, False)])


def limits(precision: str = "fp32", **values: float) -> Tolerance:
    return dataclasses.replace(TOLERANCES[precision], **values)  # type: ignore[arg-type]


@AROUND
@pytest.mark.parametrize("frozen", [True, False])
def test_distance_of_a_token_as_a_share_of_the_spread(factor: float, passes: bool, frozen: bool) -> None:
    reference = torch.tensor([[[2.0, 0.0], [-2.0, 0.0]]], dtype=torch.float64)  # of mean 0, each 2 away from it
    deployed = reference.clone()
    deployed[0, 1, 1] += 2 * 0.125 * factor
    stage = StageDifference(0)
    stage.add_tokens(reference, deployed, torch.tensor([[False, frozen]]))
    found = Comparison(limits(tokens_max_abs=1e9, tokens_relative=0.125), stages={0: stage})
    assert found.drifted(stage) is not passes
    assert (found.failures == []) is passes
    kept, frozen_ones = stage.of_kept.max_relative, stage.of_frozen.max_relative
    assert (frozen_ones if frozen else kept) == pytest.approx(0.125 * factor)
    assert (kept if frozen else frozen_ones) == (0 if frozen else None)


@AROUND
@pytest.mark.parametrize(
    ("scale", "largest", "allowed"), [(1.0, 0.5, 0.01), (1.0, 8.0, 0.08), (0.0, 0.5, 0.005), (1.0, math.inf, 0.01)]
)
def test_score_of_a_kept_token_below_that_of_a_frozen_one(
    factor: float, passes: bool, scale: float, largest: float, allowed: float
) -> None:
    stage = StageDifference(0, kept=1, score_gap=allowed * factor, largest_score=largest)
    found = Comparison(limits(score_gap=0.01), scale, stages={0: stage})
    assert found.near_tie(stage) == pytest.approx(allowed)
    assert (found.failures == []) is passes


@pytest.mark.parametrize(("wanted", "passes"), [(0.79, True), (0.81, False)])
def test_angle_of_the_features_on_each_models_own_tokens(wanted: float, passes: bool) -> None:
    found = Comparison(limits(cosine_min=wanted))
    found.own_features.add(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[4.0, 3.0]]]))  # 4 / 5
    assert found.own_features.cosine_min == pytest.approx(0.8)
    assert (found.failures == []) is passes


@AROUND
@pytest.mark.parametrize(("size", "allowed"), [(0.5, 0.125), (8.0, 1.0)])
def test_difference_of_a_logit_and_a_feature(factor: float, passes: bool, size: float, allowed: float) -> None:
    values = torch.tensor([[size, -size]])
    for name in ("logits", "features"):
        found = Comparison(limits(logits_max_abs=0.125))
        if name == "logits":
            found.logits.add(values, values)
            found.same_selection.add(values, values + allowed * factor)
        else:
            found.features.add(values[None], values[None] + allowed * factor)
        assert (found.failures == []) is passes, name


def test_overlap_is_the_share_of_what_pytorch_keeps() -> None:
    stage = StageDifference(0)
    reference = torch.tensor([[True, True, False, False], [True, True, False, False]])
    stage.add_selection(reference, torch.tensor([[True, False, True, False], [True, True, False, False]]))
    assert (stage.kept, stage.flipped, stage.overlap) == (4, 1, 0.75)
    assert Comparison(limits(), stages={0: stage}).agreement().least_overlap == 0.75


def test_a_limit_of_ones_own_that_nothing_was_measured_for_is_not_judged() -> None:
    overrides = {"accuracy_lost": 0.0, "kl_mean": 1.0, "tokens_relative": 0.1}
    result = Comparison(tolerance_of("fp32", overrides))
    assert result.passed is None
    assert result.unjudged == ["accuracy_lost", "kl_mean", "tokens_relative"]
    (check,) = [check for check in result.checks if check.name == "tolerances"]
    assert check.passed is None
    result.logits.add(torch.eye(2), torch.eye(2), labels=torch.tensor([0, 1]))
    assert result.unjudged == ["tokens_relative"]
    assert Comparison(tolerance_of("fp32", {})).passed is True


@pytest.mark.parametrize(
    ("images", "lost", "passes"),
    [(50, 1, True), (50, 2, False), (1000, 10, True), (1000, 11, False), (5, 1, True), (1000, -50, True)],
)
def test_a_point_of_accuracy_or_one_image_may_be_lost(images: int, lost: int, passes: bool) -> None:
    logits = LogitsDifference(labelled=images, right_reference=900, right_deployed=900 - lost)
    comparison = Comparison(TOLERANCES["fp32"], logits=logits)
    comparison.logits.add(torch.eye(2), torch.eye(2))
    assert comparison.failures == ([] if passes else [f"It loses {lost / images:.2%} of accuracy; 1% is allowed."])


@pytest.mark.parametrize(("name", "factor", "passes"), [("tokens_max_abs", 0.9, True), ("tokens_max_abs", 1.1, False)])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("size", [0.5, 1.0, 8.0])
def test_a_token_may_differ_by_the_limit_relative_beyond_one(
    name: str, factor: float, passes: bool, precision: str, size: float
) -> None:
    limit = getattr(TOLERANCES[precision], name) * max(1.0, size)
    reference = torch.full((1, 64, 4), size) * torch.tensor([1.0, -1.0]).repeat(32)[None, :, None]
    deployed = reference.clone()
    deployed[0, 5, 2] += limit * factor
    stage = StageDifference(0)
    stage.add_tokens(reference, deployed, torch.zeros(1, 64, dtype=torch.bool))
    comparison = Comparison(limits(precision, tokens_relative=1e9), stages={0: stage})
    assert (comparison.failures == []) == passes
    logits = Comparison(TOLERANCES[precision])
    logits.same_selection.add(reference[:, 0], reference[:, 0] + limit * factor)
    logits.logits.add(reference[:, 0], reference[:, 0])
    assert (logits.failures == []) == passes


@pytest.mark.parametrize(("limit", "passes"), [(0.5, True), (0.51, False)])
def test_as_many_classes_must_agree_as_the_limit_says(limit: float, passes: bool) -> None:
    comparison = Comparison(limits("fp8", top1_agreement=limit, kl_mean=1e9, cosine_min=0.0))
    comparison.logits.add(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    assert (comparison.failures == []) == passes


@pytest.mark.parametrize(("known", "complains"), [(True, False), (False, True)])
def test_the_cosine_counts_where_the_selection_is_not_known(known: bool, complains: bool) -> None:
    comparison = Comparison(limits(top1_agreement=0.0, kl_mean=1e9))
    comparison.logits.add(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    if known:
        comparison.stages[0] = StageDifference(0)
    assert bool(comparison.failures) == complains


@pytest.mark.parametrize(("factor", "passes"), [(1.01, True), (0.99, False), (0.1, False)])
def test_the_mean_divergence_may_be_what_the_limit_says(factor: float, passes: bool) -> None:
    q = 1 / (1 + math.e)  # of the deployed model's first class; the reference says one half of both
    limit = factor * (0.5 * math.log(0.5 / q) + 0.5 * math.log(0.5 / (1 - q)))
    comparison = Comparison(limits(kl_mean=limit, top1_agreement=0.0, cosine_min=0.0))
    comparison.logits.add(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, 1.0]]))
    assert (comparison.failures == []) == passes
