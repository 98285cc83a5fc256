"""The parts of ToFe's training loss, each a small function of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe

_LEAST_POWER = 1e-6  # of tokens that are all zero


def classification_loss(
    logits: Float[Tensor, "B K"], labels: Int[Tensor, " B"] | Float[Tensor, "B K"], smoothing: float = 0.0
) -> Tensor:
    """Mean cross-entropy with class indices or, of mixed images, with shares of the classes; in float32."""
    return F.cross_entropy(logits.float(), labels, label_smoothing=smoothing)


def distillation_loss(student: Float[Tensor, "B K"], teacher: Float[Tensor, "B K"]) -> Tensor:
    """KL(teacher || student) per image; no gradient reaches the teacher."""
    target = F.log_softmax(teacher.detach().float(), dim=1)
    return F.kl_div(F.log_softmax(student.float(), dim=1), target, reduction="batchmean", log_target=True)


def approximation_loss(
    estimates: Sequence[Float[Tensor, "B N C"]],
    masks: Sequence[Float[Tensor, "B N"]],
    teacher: Sequence[Float[Tensor, "B N C"]],
    frozen_tokens: Sequence[Tensor] | None = None,
    powers: Sequence[Tensor] | None = None,
) -> Tensor:
    """Mean squared error of the estimated frozen tokens against the dense teacher's at the same depth.

    In units of the teacher's mean square, which differs between backbones by a hundred and grows with the depth: so
    one weight fits all of them, and every stage.

    Kept tokens do not count: their estimates are never used. The mean runs over frozen tokens and channels, then
    over stages; a stage that froze nothing contributes 0. Masks carry no gradient here, or the selector would learn
    to freeze whatever is easy to estimate. The estimates still carry some to selectors: to those of earlier stages,
    which decide what an approximator is given, and, where it is a block, to the stage's own, for frozen tokens are
    keys to each other.

    Args:
        estimates: per stage that brings frozen tokens back, the approximator's output of every patch token.
        masks: of the same stages at least, 1.0 where kept; more than there are estimates is fine.
        teacher: the teacher's patch tokens after the same stages.
        frozen_tokens: per stage, the number of frozen tokens to take the mean over where images lie in several
            processes: the mean over the processes. None counts those of these masks.
        powers: per stage, the mean square of the teacher's tokens of all processes; None takes that of these.
    """
    if not estimates:
        return torch.zeros((), device=masks[0].device if masks else None)
    errors = []
    for stage, (estimate, mask, target) in enumerate(zip(estimates, masks, teacher, strict=False)):
        frozen = (1 - mask).detach().float()
        squared = (estimate.float() - target.detach().float()).square().mean(dim=2)
        number = frozen.sum() if frozen_tokens is None else frozen_tokens[stage]
        power = mean_square(target) if powers is None else powers[stage]
        # Of no token there is no error; less than one may freeze in the mean over processes.
        errors.append((squared * frozen).sum() / torch.where(number > 0, number, 1) / power)
    return torch.stack(errors).mean()


def mean_square(tokens: Float[Tensor, "B N C"]) -> Tensor:
    """Over everything, at least a little."""
    return tokens.detach().float().square().mean().clamp(min=_LEAST_POWER)


def kept_tokens(masks: Sequence[Float[Tensor, "B N"]]) -> Float[Tensor, " S"]:
    """Per stage, the mean over images of the number of kept tokens; differentiable."""
    return torch.stack([mask.float().sum(dim=1).mean() for mask in masks])


def spread_loss(masks: Sequence[Float[Tensor, "B N"]], kept: Float[Tensor, " S"]) -> Tensor:
    """Variance over images of the share of tokens that a stage keeps, summed over stages; differentiable.

    DynamicViT draws every image to a given ratio (Rao et al., arXiv 2106.02034); here the mean is free.

    Args:
        masks: see `kept_tokens`.
        kept: per stage, the mean number of kept tokens, of all processes.
    """
    shares = torch.stack([mask.float().mean(dim=1) for mask in masks])
    means = kept / masks[0].shape[1]
    return (shares.square().mean(dim=1) - means.square()).sum()


def macs_ratio(model: ToFe, kept: Float[Tensor, " S"]) -> Tensor:
    """MACs at these mean numbers of kept tokens, as a share of the dense backbone's; differentiable."""
    return torch.as_tensor(tofe_macs(model, list(kept.unbind()))) / dense_macs(model.vit)


def budget_loss(ratio: Tensor, budget: float) -> Tensor:
    """(ratio - budget)^2."""
    return (ratio - budget).square()
