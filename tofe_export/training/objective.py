"""What a step is trained for: the parts of its loss; beside them what is logged, and what steers the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.model import backbones
from tofe_export.model.families import Backbone
from tofe_export.model.outputs import MaskedOutput
from tofe_export.model.tofe import ToFe
from tofe_export.training import losses
from tofe_export.training.processes import Processes
from tofe_export.training.steering import Steering, crossing_rates, crossing_widths

Terms = dict[str, tuple[float, Tensor]]
"""Name -> weight and value. What has the weight 0 is there to be logged, or where its name begins with an underscore
to be steered by alone."""


@dataclass(frozen=True)
class Objective:
    """Of one phase.

    Attributes:
        recipe: with the weights.
        model: the network that is trained.
        steering: with the prices and the cost to aim at.
        processes: those that make each step together.
        smoothing: of the labels.
    """

    recipe: TrainingRecipe
    model: ToFe
    steering: Steering
    processes: Processes
    smoothing: float

    def dense(self, logits: Tensor, targets: Tensor) -> Terms:
        """Of the backbone alone: the cross-entropy of logits [B, K] with classes [B], or with shares of them [B, K]."""
        return {"classification": (1.0, losses.classification_loss(logits, targets, self.smoothing))}

    def tofe(
        self, out: MaskedOutput, images: Tensor, targets: Tensor, teacher: Backbone, share: float, noise: float
    ) -> Terms:
        """Of a masked pass over images [B, 3, H, W] with Gumbel noise of this scale, when this share of the phase is
        done."""
        weights, model = self.recipe.loss, self.model
        ends = [blocks.stop for blocks in model.stage_blocks[: len(out.estimates)]]
        with torch.no_grad():
            teacher_logits, tokens = backbones.dense_tokens(teacher, images, ends)
        at_ends = [at_end[:, model.prefix :] for at_end in tokens]
        kept, spreads, powers = self._over_processes(out, at_ends)
        frozen = len(images) * (model.tokens - kept.detach())
        ratio = losses.macs_ratio(model, kept)
        widths = crossing_widths(spreads, noise)
        rates = crossing_rates(out.scores, widths)
        approximation = losses.approximation_loss(out.estimates, out.masks, at_ends, list(frozen), powers)
        return {
            "classification": (
                weights.classification,
                losses.classification_loss(out.logits, targets, self.smoothing),
            ),
            "distillation": (weights.distillation, losses.distillation_loss(out.logits, teacher_logits)),
            "approximation": (weights.approximation, approximation.to(images.device)),
            "budget": (weights.budget, losses.budget_loss(ratio, self.steering.target.at(share))),
            "spread": (weights.spread, losses.spread_loss(out.masks, kept)),
            "price": (1.0, self.steering.charge(kept / model.tokens, share)),
            **{f"price_{stage}": (0.0, torch.tensor(one)) for stage, one in enumerate(self.steering.prices)},
            "train_macs_ratio": (0.0, ratio),
            **{f"train_keep_{stage}": (0.0, one / model.tokens) for stage, one in enumerate(kept)},
            **{f"_rate_{stage}": (0.0, one) for stage, one in enumerate(rates)},
            **{f"_width_{stage}": (0.0, one) for stage, one in enumerate(widths)},
        }

    def _over_processes(
        self, out: MaskedOutput, targets: Sequence[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        """Over the images of all processes, per stage: the mean number of kept tokens [S], differentiable; the spread
        of the scores; and the mean square of the teacher's tokens, of stages that have an approximator."""
        kept, stages = losses.kept_tokens(out.masks), len(out.masks)
        # Tokens that are gone have no score, and count for nothing.
        scores = [(one.isfinite().sum(), one.nan_to_num(neginf=0.0)) for one in out.scores]
        moments = [torch.stack([number, one.sum(), one.square().sum()]) for number, one in scores]
        own = torch.cat([kept.detach(), *moments, *(losses.mean_square(one)[None] for one in targets)])
        of_all = self.processes.total(own) / self.processes.size
        number, first, second = of_all[stages : 4 * stages].view(stages, 3).unbind(dim=1)
        number = number.clamp(min=1)
        spreads = (second / number - (first / number).square()).clamp(min=0).sqrt()
        # The gradient of this process's share: DDP takes the mean of the gradients.
        kept = kept + (of_all[:stages] - kept.detach())
        return kept, list(spreads), list(of_all[4 * stages :])
