"""The loss parts against values worked out by hand, and the schedules at their ends."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tofe_export.model.config import ToFeConfig
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.selector import gumbel_choice
from tofe_export.model.tofe import build_tofe
from tofe_export.training import losses, schedule


def test_distillation_is_zero_for_equal_logits_and_kl_otherwise() -> None:
    student, teacher = torch.randn(5, 7), torch.randn(5, 7)
    p, q = teacher.softmax(1), student.softmax(1)
    torch.testing.assert_close(losses.distillation_loss(student, teacher), (p * (p / q).log()).sum(1).mean())
    assert losses.distillation_loss(teacher, teacher).abs() < 1e-6


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    losses.distillation_loss(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad is not None


def test_only_frozen_tokens_count_in_the_approximation() -> None:
    estimate, target = torch.zeros(1, 3, 2), torch.tensor([[[9.0, 9.0], [1.0, 3.0], [2.0, 0.0]]])
    mask = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
    found = losses.approximation_loss([estimate], [mask], [target])
    assert found.item() == pytest.approx((1 + 9 + 4 + 0) / 4 / ((81 + 81 + 1 + 9 + 4 + 0) / 6))
    assert not found.requires_grad  # the selector must not learn to freeze what is easy to estimate


def test_a_stage_that_froze_nothing_adds_nothing() -> None:
    ones, target = torch.ones(2, 3), torch.randn(2, 3, 4)
    assert losses.approximation_loss([torch.zeros(2, 3, 4)], [ones], [target]).item() == 0
    assert losses.approximation_loss([], [ones], []).item() == 0


def test_label_smoothing_is_passed_on() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    assert losses.classification_loss(logits, labels).item() == pytest.approx(F.cross_entropy(logits, labels).item())
    assert losses.classification_loss(logits, labels, 0.1).item() != losses.classification_loss(logits, labels).item()


def test_macs_ratio_is_that_of_the_mean_counts_and_pulls_masks_towards_the_budget() -> None:
    model = build_tofe(
        ToFeConfig(
            "vit_tiny_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}
        )
    )
    masks = [(torch.rand(3, model.tokens) > 0.5).float().requires_grad_() for _ in range(3)]
    dense = dense_macs(model.vit)
    ratio = losses.macs_ratio(model, losses.kept_tokens(masks))
    counts = [float(mask.detach().sum(1).mean()) for mask in masks]
    assert ratio.item() == pytest.approx(tofe_macs(model, counts) / dense, rel=1e-5)
    losses.budget_loss(ratio, ratio.item() - 0.2).backward()
    assert all(mask.grad is not None and (mask.grad > 0).all() for mask in masks)  # too expensive: keep less


def test_spread_is_the_variance_over_images_and_draws_them_together() -> None:
    masks = [torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0]], requires_grad=True), torch.ones(2, 4)]
    found = losses.spread_loss(masks, losses.kept_tokens(masks))
    assert found.item() == pytest.approx(((1 - 0.625) ** 2 + (0.25 - 0.625) ** 2) / 2)
    found.backward()
    assert masks[0].grad is not None
    assert (masks[0].grad[0] > 0).all()  # the image that keeps more should keep less
    assert (masks[0].grad[1] < 0).all()


@given(st.floats(0, 1), st.floats(0, 0.9))
def test_learning_rate_stays_in_range_and_ends_at_zero(progress: float, warmup: float) -> None:
    assert 0 <= schedule.learning_rate_factor(progress, warmup) <= 1
    assert schedule.learning_rate_factor(1.0, warmup) == pytest.approx(0, abs=1e-12)
    assert schedule.learning_rate_factor(warmup, warmup) == pytest.approx(1)


@given(st.floats(0, 1), st.floats(0, 0.9))
def test_noise_falls_to_zero_for_the_quiet_share(progress: float, quiet: float) -> None:
    noise = schedule.noise_at(progress, quiet)
    assert 0 <= noise <= 1
    if progress >= 1 - quiet:
        assert noise == pytest.approx(0, abs=1e-12)


def test_temperature_is_geometric() -> None:
    assert schedule.temperature_at(0, 4.0, 1.0) == 4.0
    assert schedule.temperature_at(0.5, 4.0, 1.0) == pytest.approx(2.0)
    assert schedule.temperature_at(1, 4.0, 1.0) == pytest.approx(1.0)


def test_without_noise_the_choice_is_the_threshold_and_still_has_gradients() -> None:
    logits = torch.randn(2, 50, 2, requires_grad=True)
    mask = gumbel_choice(0.5, 0.0)(0, logits)
    assert torch.equal(mask.detach(), (logits[..., 0] > logits[..., 1]).float())
    mask.sum().backward()
    assert logits.grad is not None
    assert (logits.grad[..., 0] > 0).all()


def test_with_full_noise_the_choice_samples_the_softmax() -> None:
    torch.manual_seed(0)
    logits = torch.tensor([math.log(3.0), 0.0]).expand(1, 40_000, 2)
    mask = gumbel_choice(1.0, 1.0)(0, logits)
    assert set(mask.unique().tolist()) == {0.0, 1.0}
    assert mask.mean().item() == pytest.approx(0.75, abs=0.01)
