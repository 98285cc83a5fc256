"""The four parts of ToFe's training loss (DESIGN section 2), each a small function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe


@dataclass(frozen=True)
class LossWeights:
    """What each part counts in the sum, and the label smoothing of the first.

    Attributes:
        classification: cross-entropy with the labels.
        distillation: divergence from the dense teacher's logits.
        approximation: error of the estimated frozen tokens.
        budget: squared distance of the MACs ratio from its target.
        label_smoothing: 0 for hard labels.
    """

    classification: float = 1.0
    distillation: float = 0.5
    approximation: float = 0.5
    budget: float = 10.0
    label_smoothing: float = 0.0


def classification_loss(logits: Float[Tensor, "B K"], labels: Int[Tensor, " B"], smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy, in float32."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def distillation_loss(student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Tensor:
    """KL(teacher || student) per image; no gradient reaches the teacher."""
    target = F.log_softmax(teacher.detach().float(), dim=1)
    return F.kl_div(F.log_softmax(student.float(), dim=1), target, reduction="batchmean", log_target=True)


def approximation_loss(
    estimates: Sequence[Float[Tensor, "B N C"]],
    masks: Sequence[Float[Tensor, "B N"]],
    teacher: Sequence[Float[Tensor, "B N C"]],
) -> Tensor:
    """Mean squared error of the estimated frozen tokens against the dense teacher's at the same depth.

    Kept tokens do not count: their estimates are never used. The mean runs over frozen tokens and channels, then
    over stages; a stage that froze nothing contributes 0. Masks carry no gradient here, or the selector would learn
    to freeze whatever is easy to estimate.

    Args:
        estimates: per stage that brings frozen tokens back, the approximator's output of every patch token.
        masks: of the same stages at least, 1.0 where kept; more than there are estimates is fine.
        teacher: the teacher's patch tokens after the same stages.
    """
    if not estimates:
        return torch.zeros(())
    errors = []
    for estimate, mask, target in zip(estimates, masks, teacher, strict=False):
        frozen = (1 - mask).detach().float()
        squared = (estimate.float() - target.detach().float()).square().mean(dim=2)
        errors.append((squared * frozen).sum() / frozen.sum().clamp(min=1))
    return torch.stack(errors).mean()


def macs_ratio(model: ToFe, masks: Sequence[Float[Tensor, "B N"]]) -> Tensor:
    """MACs at the batch's mean kept counts, as a share of the dense backbone's; differentiable."""
    counts = [mask.float().sum(dim=1).mean() for mask in masks]
    return torch.as_tensor(tofe_macs(model, counts)) / dense_macs(model.vit)


def budget_loss(ratio: Tensor, budget: float) -> Tensor:
    """(ratio - budget)^2."""
    return (ratio - budget).square()
