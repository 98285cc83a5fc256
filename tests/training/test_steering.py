"""Steering: the cost that is aimed at, thresholds that come to their shares, and prices that hold them there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.helpers import small_images, small_tofe
from tofe_export.documents.training_recipe import ToFeTable
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.selector import gumbel_choice, threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.training.steering import (
    Steering,
    Target,
    crossing_rates,
    crossing_widths,
    move_towards,
    raise_score,
    share_of_dense,
    shares_for,
)

IMAGES = small_images(24)


def test_the_target_falls_from_fresh_selectors_to_the_budget() -> None:
    model = small_tofe()
    target = Target.of(model, ToFeTable(budget=0.5, ramp=0.4, initial_keep=0.9))
    assert target.at(0.0) == pytest.approx(share_of_dense(model, [0.9] * 3))
    assert target.at(0.2) == pytest.approx((target.at(0.0) + 0.5) / 2)
    assert [target.at(share) for share in (0.4, 0.7, 1.0)] == [0.5] * 3
    assert Target.of(model, ToFeTable(budget=0.5, ramp=0.0)).at(0.0) == 0.5


def towards(model: ToFe, wanted: list[float], out: MaskedOutput, kept: list[float], noise: float) -> None:
    widths = crossing_widths([one.std() for one in out.scores], noise)
    rates = crossing_rates(out.scores, widths)
    move_towards(model, wanted, kept, [float(one) for one in rates], [float(one) for one in widths])


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
    model, costs, stages = small_tofe(), [], []
    for stage in range(len(model.stages)):
        raise_score(model, stage, start)
    wanted = shares_for(model, target, shares)
    assert share_of_dense(model, wanted) == pytest.approx(target)
    for _ in range(60):
        with torch.no_grad():
            out = model.forward_masked(IMAGES, gumbel_choice(1.0))
        kept = [float(mask.mean()) for mask in out.masks]
        costs.append(share_of_dense(model, kept))
        stages.append(kept)
        towards(model, wanted, out, kept, noise=1.0)
    assert sum(costs[-20:]) / 20 == pytest.approx(target, abs=0.02)
    assert np.mean(stages[-20:], axis=0) == pytest.approx(wanted, abs=0.04)


def test_stages_begin_even_and_fall_where_tokens_are_discarded() -> None:
    assert Steering(small_tofe(), ToFeTable()).shares == [0.5, 0.5, 0.5]
    assert Steering(small_tofe(approximator="discard"), ToFeTable()).shares == [0.5, 0.25, 0.125]


def test_prices_rise_while_thresholds_are_pushed_up() -> None:
    """A stage that keeps too many tokens pays more for each until it keeps fewer; none pays for what it is to keep."""
    steering = Steering(small_tofe(), ToFeTable(budget=0.5, ramp=0.0))
    wanted = steering.wanted(0.5)
    kept = [wanted[0] + 0.1, wanted[1], wanted[2] - 0.1]
    assert float(steering.charge(torch.tensor(kept), 0.5)) == 0.0
    steering.step(0.5, kept, [0.25] * 3, [1.0] * 3)
    assert steering.prices == pytest.approx([0.12, 0.0, -0.12])  # 0.3 of 0.1, over the rate
    assert float(steering.charge(torch.tensor(kept), 0.5)) == pytest.approx(0.024)
    assert float(steering.charge(torch.tensor(wanted), 0.5)) == pytest.approx(0.0, abs=1e-7)
    for _ in range(1000):
        steering.step(0.5, [1.0, wanted[1], 0.0], [0.25] * 3, [1.0] * 3)
    assert steering.prices == pytest.approx([100.0, 0.0, -100.0])
    assert steering.shares == [0.5] * 3


def test_where_tokens_are_worth_more_a_stage_comes_to_keep_more_for_the_same_cost() -> None:
    steering = Steering(small_tofe(), ToFeTable(budget=0.5, ramp=0.0, count_rate=0.1))
    before = steering.wanted(0.5)
    steering.step(0.5, [before[0] + 0.1, before[1], before[2]], [0.25] * 3, [1.0] * 3)
    after = steering.wanted(0.5)
    assert after[0] > before[0]
    assert after[1] < before[1]
    assert after[1] == pytest.approx(after[2])
    assert share_of_dense(small_tofe(), after) == pytest.approx(0.5)


def test_what_is_saved_is_gone_on_with() -> None:
    first, second = (Steering(small_tofe(), ToFeTable(budget=0.5, count_rate=0.1)) for _ in range(2))
    first.step(0.5, [0.9, 0.5, 0.2], [0.25] * 3, [1.0] * 3)
    second.restore(first.saved())
    assert (second.shares, second.prices) == (first.shares, first.prices)
    assert second.wanted(0.7) == first.wanted(0.7)
