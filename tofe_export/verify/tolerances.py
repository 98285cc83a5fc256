"""How far a deployed model may be from PyTorch, per precision, each limit with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Limits of one precision.

    Attributes:
        logits_max_abs: largest difference of a logit, the selection being the same; for logits beyond 1 it is
            taken relative to the largest one.
        selection_overlap: least share of kept tokens that both models chose, per stage.
        score_gap: how far below a frozen token a kept one may score in PyTorch, given the tokens that the deployed
            model kept before; for scores beyond 1 relative to the largest one. So other choices pass only as near-ties.
        top1_agreement: least share of images with the same best class.
    """

    logits_max_abs: float
    selection_overlap: float
    score_gap: float
    top1_agreement: float


TOLERANCES = {
    # Twelve blocks of float32 sums in another order stay near 1e-5, for scores as for logits. A near-tie may flip one
    # token in a thousand, and with it the class of an image in a hundred; with the same tokens nothing may differ.
    "fp32": Tolerance(logits_max_abs=1e-4, selection_overlap=0.999, score_gap=1e-4, top1_agreement=0.99),
}
