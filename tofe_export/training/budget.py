"""Meeting the budget: whether it can be met, thresholds that meet it at the end, and what is said of a finished run."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from tofe_export.errors import InputError
from tofe_export.model.tofe import ToFe
from tofe_export.training.steering import raise_score, share_of_dense

_MET = 0.02
_ALMOST_NONE, _ALMOST_ALL = 1.5, 0.5  # tokens: fewer than the one, fewer than the other short of all


def require_reachable(model: ToFe, budget: float) -> None:
    """Raises InputError where no keep counts cost the budget.

    One token in each stage costs more than it, or every token kept costs less; or the network costs more the fewer
    tokens it keeps, so that it saves nothing at all.
    """
    stages = len(model.stages)
    most = share_of_dense(model, [1.0] * stages)
    least = share_of_dense(model, [1 / model.tokens] * stages)
    if least >= most:
        raise InputError(
            f"This network saves nothing: it costs {most:.3f} of its dense backbone with every token kept, and "
            f"{least:.3f} with a single one in each stage.",
            "Choose another `approximator`, such as bottleneck, or `stages` of more blocks.",
            code="nothing-saved",
            most=most,
            least=least,
        )
    if budget > most:  # a last stage without features is cheaper than the backbone's blocks, whatever it keeps
        raise InputError(
            f"A budget of {budget:g} would freeze nothing: with every token kept this network costs {most:.3f} of its "
            "dense backbone.",
            f"Give a `budget` of at most {math.floor(most * 100) / 100 - 0.01:.2f}.",
            code="budget-without-freezing",
            budget=budget,
            most=most,
        )
    if budget < least:
        raise InputError(
            f"A budget of {budget:g} cannot be met: with a single token in each stage this network still costs "
            f"{least:.3f} of its dense backbone, most of it before the first stage.",
            f"Give a `budget` of at least {math.ceil(least * 100) / 100 + 0.01:.2f}, or let the first of the `stages` "
            "begin earlier.",
            code="budget-unreachable",
            budget=budget,
            least=least,
        )


Measure = Callable[[], Sequence[Tensor]]
"""Per stage, the scores of all tokens of some images as they are in use, -infinity where a token is gone."""


def set_thresholds(model: ToFe, shares: Sequence[float], measure: Measure) -> list[float]:
    """Sets the threshold of every stage so that the stages keep these shares of the tokens, in the mean over images.

    A stage's threshold is a quantile of its scores, found after those before it, for what they keep changes its scores.

    Args:
        model: its selectors are changed in place.
        shares: to come to, see `Steering.wanted`.
        measure: called with the model as it then is, once more than there are stages.

    Returns:
        The shares that the stages keep on these images.
    """
    for stage, share in enumerate(shares):
        raise_score(model, stage, -_quantile(measure()[stage], share))
    return [float((scores > 0).float().mean()) for scores in measure()]


def _quantile(scores: Tensor, share: float) -> float:
    """The threshold above which this share of the scores lies: halfway between two of them, or below the lowest."""
    there = scores[scores.isfinite()].double().sort(descending=True).values
    kept = min(max(round(share * scores.numel()), 1), len(there))
    return float(there[kept - 1 : kept + 1].mean()) if kept < len(there) else float(there[-1]) - 1.0


def budget_notes(model: ToFe, budget: float, cost: float, kept: Sequence[float]) -> list[str]:
    """What a user must know of a finished run: a budget that was missed, and stages that decide nothing."""
    notes = []
    if abs(cost - budget) > _MET:
        notes.append(
            f"The budget was missed: on held-out images the network costs {cost:.1%} of its dense backbone, and was to "
            f"cost {budget:.1%}. Its thresholds were set on training images, which are too few or unlike the held-out "
            "ones. Train with more images, or choose the keep counts yourself when you export."
        )
    for stage, share in enumerate(kept):
        tokens = share * model.tokens
        if tokens < _ALMOST_NONE:
            notes.append(f"Stage {stage} keeps almost no token ({tokens:.1f} of {model.tokens}): it only estimates.")
        elif tokens > model.tokens - _ALMOST_ALL:
            notes.append(f"Stage {stage} keeps every token: its selector costs time and saves nothing.")
    return notes
