"""The budget: one that cannot be met is refused, others are met from wherever selectors are, collapse is named."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.helpers import refused_as, small_images, small_tofe
from tofe_export.data.images import Batch
from tofe_export.documents.training_recipe import ToFeTable
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.selector import threshold_choice
from tofe_export.model.tofe import ToFe
from tofe_export.training import budget
from tofe_export.training.loop import all_scores
from tofe_export.training.processes import Processes
from tofe_export.training.steering import Steering, raise_score, share_of_dense

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
    for stage in range(len(model.stages)):
        raise_score(model, stage, by)
    return model


@pytest.mark.parametrize("approximator", ["bottleneck", "discard"])
@pytest.mark.parametrize("start", [-30.0, 0.0, 30.0], ids=["keeps nothing", "fresh", "keeps everything"])
@pytest.mark.parametrize("target", [0.55, 0.65, 0.75])
def test_thresholds_meet_the_budget_from_anywhere(target: float, start: float, approximator: str) -> None:
    model = moved(small_tofe(approximator=approximator), start)
    assert share_of_dense(model, [1 / model.tokens] * 3) < target < share_of_dense(model, [1.0] * 3)
    wanted = Steering(model, ToFeTable(budget=target)).wanted(1.0)
    kept = budget.set_thresholds(model, wanted, lambda: measure(model))
    assert kept == pytest.approx(wanted, abs=0.02)
    assert cost_on_images(model) == pytest.approx(target, abs=0.02)
    assert share_of_dense(model, kept) == pytest.approx(target, abs=0.02)


def test_a_stage_that_is_to_keep_more_than_is_left_keeps_what_is_left() -> None:
    """Where tokens are discarded; its threshold is a number all the same."""
    model = small_tofe(approximator="discard")
    assert budget.set_thresholds(model, [0.25, 0.5, 0.125], lambda: measure(model)) == [0.25, 0.25, 0.125]
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_a_process_without_an_image_for_thresholds_has_no_scores() -> None:
    """There may be more processes than such images."""
    model = small_tofe()
    assert [scores.shape for scores in all_scores(model, [], CPU, Processes())] == [(0, 16)] * 3


def test_the_floor_is_the_cost_of_one_token_a_stage() -> None:
    model = small_tofe()
    least = tofe_macs(model, [1.0] * 3) / dense_macs(model.vit)
    budget.require_reachable(model, least + 0.01)
    most = share_of_dense(model, [1.0] * 3)
    budget.require_reachable(model, most - 1e-9)
    with refused_as("budget-without-freezing", budget=most + 0.01):
        budget.require_reachable(model, most + 0.01)
    with refused_as("budget-unreachable", budget=least - 0.01) as caught:
        budget.require_reachable(model, least - 0.01)
    assert f"{least:.3f}" in caught.value.message


def test_a_network_that_costs_more_the_fewer_tokens_it_keeps_is_refused() -> None:
    model = small_tofe(approximator="block")
    with refused_as("nothing-saved", most=share_of_dense(model, [1.0] * 3)) as caught:
        budget.require_reachable(model, 0.5)
    assert "approximator" in caught.value.next_step


def test_what_a_user_is_told_of_a_finished_run() -> None:
    model = small_tofe()
    assert budget.budget_notes(model, 0.5, 0.515, [0.5, 0.4, 0.3]) == []
    (missed,) = budget.budget_notes(model, 0.5, 0.83, [0.9, 0.9, 0.9])
    assert "costs 83.0% of its dense backbone" in missed
    nothing, everything = budget.budget_notes(model, 0.5, 0.5, [0.5, 1 / model.tokens, 1.0])
    assert "Stage 1 keeps almost no token" in nothing
    assert "Stage 2 keeps every token" in everything
