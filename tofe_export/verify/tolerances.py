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
        top1_agreement: least share of images with the same best class.
    """

    logits_max_abs: float
    selection_overlap: float
    top1_agreement: float


TOLERANCES = {
    # Twelve blocks of float32 sums in another order stay near 1e-5. A selection may differ only where two
    # scores tie to the last bits, which is at most one token in a thousand; a class likewise.
    "fp32": Tolerance(logits_max_abs=1e-4, selection_overlap=0.999, top1_agreement=0.99),
}
