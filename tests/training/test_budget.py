"""The budget: one that cannot be met is refused, others are met from wherever selectors are, collapse is named."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.helpers import refused_as, small_images, small_tofe
from tofe_export.data.images import Batch
from tofe_export.documents.training_recipe import ToFeTable
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import gumbel_choice, threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.training import budget
from tofe_export.training.loop import all_scores
from tofe_export.training.processes import Processes

IMAGES = small_images(24)
CPU = torch.device("cpu")


def measure(model: ToFe) -> list[Tensor]:
    return all_scores(model, [Batch(IMAGES, None, ("",) * len(IMAGES))], CPU, Processes())


def cost_on_images(model: ToFe) -> float:
    """Mean over images of their own MACs on the threshold path, as evaluation takes it."""
    with torch.no_grad():
        masks = model.eval().forward_masked(IMAGES, threshold_choice).masks
    counts = torch.stack([mask.sum(dim=1) for mask in masks], dim=1).tolist()
    return sum(tofe_macs(model, row) for row in counts) / len(IMAGES) / dense_macs(model.vit)


def moved(model: ToFe, by: float) -> ToFe:
    with torch.no_grad():
        for stage in model.stages:
            stage.get_submodule("selector.out").get_parameter("bias")[0] += by
    return model


@pytest.mark.parametrize("approximator", ["bottleneck", "discard"])
@pytest.mark.parametrize("start", [-30.0, 0.0, 30.0], ids=["keeps nothing", "fresh", "keeps everything"])
@pytest.mark.parametrize("target", [0.55, 0.65, 0.75])
def test_thresholds_meet_the_budget_from_anywhere(target: float, start: float, approximator: str) -> None:
    model = moved(small_tofe(approximator=approximator), start)
    assert budget.share_of_dense(model, [1 / model.tokens] * 3) < target < budget.share_of_dense(model, [1.0] * 3)
    kept = budget.set_thresholds(model, target, lambda: measure(model))
    assert cost_on_images(model) == pytest.approx(target, abs=0.02)
    assert budget.share_of_dense(model, kept) == pytest.approx(target, abs=0.02)


def test_stages_share_the_cost_as_they_did() -> None:
    """The odds of being kept change by one factor for all stages."""
    model = small_tofe()
    budget.set_thresholds(model, 0.7, lambda: measure(model))
    before = [float((scores > 0).float().mean()) for scores in measure(model)]
    after = budget.set_thresholds(model, 0.6, lambda: measure(model))
    odds = [[share / (1 - share) for share in shares] for shares in (before, after)]
    factors = [new / old for old, new in zip(*odds, strict=True)]
    assert all(new < old for old, new in zip(before, after, strict=True))
    assert max(factors) / min(factors) < 1.25  # tokens are whole


def test_the_floor_is_the_cost_of_one_token_a_stage() -> None:
    model = small_tofe()
    least = tofe_macs(model, [1.0] * 3) / dense_macs(model.vit)
    budget.require_reachable(model, least + 0.01)
    most = budget.share_of_dense(model, [1.0] * 3)
    budget.require_reachable(model, most - 1e-9)
    with refused_as("budget-without-freezing", budget=most + 0.01):
        budget.require_reachable(model, most + 0.01)
    with refused_as("budget-unreachable", budget=least - 0.01) as caught:
        budget.require_reachable(model, least - 0.01)
    assert f"{least:.3f}" in caught.value.message


def test_the_target_falls_from_fresh_selectors_to_the_budget() -> None:
    model = small_tofe()
    target = budget.Target.of(model, ToFeTable(budget=0.5, ramp=0.4, initial_keep=0.9))
    assert target.at(0.0) == pytest.approx(budget.share_of_dense(model, [0.9] * 3))
    assert target.at(0.2) == pytest.approx((target.at(0.0) + 0.5) / 2)
    assert [target.at(share) for share in (0.4, 0.7, 1.0)] == [0.5] * 3
    assert budget.Target.of(model, ToFeTable(budget=0.5, ramp=0.0)).at(0.0) == 0.5


def towards(model: ToFe, wanted: list[float], out: MaskedOutput, kept: list[float], noise: float) -> None:
    widths = budget.crossing_widths([one.std() for one in out.scores], noise)
    rates = budget.crossing_rates(out.scores, widths)
    budget.move_towards(model, wanted, kept, [float(one) for one in rates], [float(one) for one in widths])


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_thresholds_come_to_their_shares_however_alike_the_scores_are(scale: float) -> None:
    """Without noise: scores that are all but equal, and scores far from each other and from the threshold."""
    model = small_tofe()
    with torch.no_grad():
        for stage in model.stages:
            out = stage.get_submodule("selector.out")
            for value in out.parameters():
                value.mul_(scale)
        for stage, scores in zip(model.stages, model.forward_masked(IMAGES, threshold_choice).scores, strict=True):
            stage.get_submodule("selector.out").get_parameter("bias")[0] += 4 * scores.std()
    wanted, stages = [0.3, 0.5, 0.6], []
    for _ in range(60):
        with torch.no_grad():
            masked = model.forward_masked(IMAGES, threshold_choice)
        stages.append([float(mask.mean()) for mask in masked.masks])
        towards(model, wanted, masked, stages[-1], noise=0.0)
    assert np.mean(stages[-20:], axis=0) == pytest.approx(wanted, abs=0.04)
    assert np.std(stages[-20:], axis=0) == pytest.approx([0.0] * 3, abs=0.04)


@pytest.mark.parametrize(("target", "start"), [(0.55, 4.0), (0.7, -4.0), (0.8, 0.0)])
@pytest.mark.parametrize("shares", [[0.5, 0.5, 0.5], [0.7, 0.5, 0.3]], ids=["uniform", "falling"])
def test_steps_draw_every_stage_to_its_share(target: float, start: float, shares: list[float]) -> None:
    """With noise and without any loss, from selectors that keep almost everything or almost nothing."""
    torch.manual_seed(0)
    model, costs, stages = moved(small_tofe(), start), [], []
    wanted = budget.Division(list(shares), 0.0).wanted(model, target)
    assert budget.share_of_dense(model, wanted) == pytest.approx(target)
    for _ in range(60):
        with torch.no_grad():
            out = model.forward_masked(IMAGES, gumbel_choice(1.0))
        kept = [float(mask.mean()) for mask in out.masks]
        costs.append(budget.share_of_dense(model, kept))
        stages.append(kept)
        towards(model, wanted, out, kept, noise=1.0)
    assert sum(costs[-20:]) / 20 == pytest.approx(target, abs=0.02)
    assert np.mean(stages[-20:], axis=0) == pytest.approx(wanted, abs=0.04)


def test_stages_begin_even_and_fall_where_tokens_are_discarded() -> None:
    assert budget.Division.of(small_tofe(), 0.0).shares == [0.5, 0.5, 0.5]
    assert budget.Division.of(small_tofe(approximator="discard"), 0.0).shares == [0.5, 0.25, 0.125]


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_the_division_follows_what_the_stages_come_to_keep(rate: float) -> None:
    division = budget.Division([0.5, 0.5, 0.5], rate)
    division.follow([0.4, 0.4, 0.4], [0.6, 0.4, 0.3])
    between = [1 / (1 + math.exp(-(math.log(2 / 3) * (1 - rate) + rate * odds))) for odds in (math.log(1.5), 0, 0)]
    assert division.shares[0] == pytest.approx(between[0])
    assert division.shares[1] == pytest.approx(0.4)
    assert division.shares[2] == pytest.approx(0.4) if not rate else division.shares[2] < 0.4


def test_the_price_rises_while_the_target_is_missed() -> None:
    price = budget.Price()
    for missed_by in (0.2, 0.2, -0.1):
        price.change(missed_by)
    assert price.value == pytest.approx(0.03)
    for _ in range(100_000):
        price.change(1.0)
    assert price.value == 100.0


def test_what_a_user_is_told_of_a_finished_run() -> None:
    model = small_tofe()
    assert budget.budget_notes(model, 0.5, 0.515, [0.5, 0.4, 0.3]) == []
    (missed,) = budget.budget_notes(model, 0.5, 0.83, [0.9, 0.9, 0.9])
    assert "costs 83.0% of its dense backbone" in missed
    nothing, everything = budget.budget_notes(model, 0.5, 0.5, [0.5, 1 / model.tokens, 1.0])
    assert "Stage 1 keeps almost no token" in nothing
    assert "Stage 2 keeps every token" in everything
