"""Meeting the budget: whether it can be met, the cost that each step aims at, and the selectors' thresholds.

The loss pulls the cost towards its target, but how far depends on learning rates, batches and the number of steps.
So the cost has a price, which rises while the target is missed; every step moves each stage's threshold by what its
images say is too much or too little; and at the end of training the thresholds are set on images as they are in use.
Which tokens go is left to the loss, and how the stages divide the cost is left to it as far as the recipe says.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.documents.training_recipe import ToFeTable
from tofe_export.errors import InputError
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe
from tofe_export.training.sharing import add_to

_GAIN = 0.3  # of a step towards the cost that its images would need
_LARGEST_MOVE = 0.5  # of a threshold in one step, in widths: scores may be all alike, or far from it
_SMALLEST_WIDTH = 1e-6
_LOWEST_RATE = 1e-6
_PRICE_RATE = 0.1  # at which a missed target changes the price, a step
_HIGHEST_PRICE = 100.0
_EXTREME = 0.005  # a share of all or none has no odds
_FAR, _HALVINGS = 20.0, 50
_MET = 0.02
_ALMOST_NONE, _ALMOST_ALL = 1.5, 0.5  # tokens: fewer than the one, fewer than the other short of all


def share_of_dense(model: ToFe, kept: Sequence[float]) -> float:
    """MACs as a share of the dense backbone's, with these shares of the tokens kept."""
    return tofe_macs(model, [share * model.tokens for share in kept]) / dense_macs(model.vit)


def require_reachable(model: ToFe, budget: float) -> None:
    """Raises InputError for a budget that not even one token a stage meets, or that every token kept stays below."""
    stages = len(model.stages)
    most = share_of_dense(model, [1.0] * stages)
    if budget > most:  # a last stage without features is cheaper than the backbone's blocks, whatever it keeps
        raise InputError(
            f"A budget of {budget:g} would freeze nothing: with every token kept this network costs {most:.3f} of its "
            "dense backbone.",
            f"Give a `budget` of at most {math.floor(most * 100) / 100 - 0.01:.2f}.",
            code="budget-without-freezing",
            budget=budget,
            most=most,
        )
    least = share_of_dense(model, [1 / model.tokens] * stages)
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


@dataclass(frozen=True)
class Target:
    """The cost that training aims at: it falls from that of fresh selectors to the budget, along a cosine.

    Attributes:
        start: share of the dense MACs with `initial_keep`.
        settings: with the budget and the share of the phase in which it falls.
    """

    start: float
    settings: ToFeTable

    @classmethod
    def of(cls, model: ToFe, settings: ToFeTable) -> Target:
        """Of a network whose selectors are fresh."""
        return cls(share_of_dense(model, [settings.initial_keep] * len(model.stages)), settings)

    def at(self, share: float) -> float:
        """When this share of the phase is done."""
        ramp, budget = self.settings.ramp, self.settings.budget
        if share >= ramp:
            return budget
        return budget + (self.start - budget) * 0.5 * (1 + math.cos(math.pi * share / ramp))


@dataclass
class Price:
    """What a share of the dense MACs costs in the loss: a multiplier, which a missed target changes step by step.

    At the end of it the losses of accuracy and the price are in balance, and selectors drift neither way (the method of
    multipliers; Bertsekas, Constrained Optimization and Lagrange Multiplier Methods, 1982).
    """

    value: float = 0.0

    def change(self, missed_by: float) -> None:
        """After a step whose cost was above its target by `missed_by`, a share of the dense MACs."""
        self.value = min(max(self.value + _PRICE_RATE * missed_by, -_HIGHEST_PRICE), _HIGHEST_PRICE)


def crossing_widths(spreads: Sequence[Tensor], noise: float) -> list[Tensor]:
    """Per stage, the distance over which the scores pass the threshold: what a move of it is measured by.

    Args:
        spreads: per stage, standard deviation of the scores over the images of all processes.
        noise: scale of the Gumbel noise on the logits; their difference has logistic noise of the same scale.
    """
    return [(noise + 0.5 * spread).clamp(min=_SMALLEST_WIDTH) for spread in spreads]


def crossing_rates(scores: Sequence[Tensor], widths: Sequence[Tensor]) -> list[Tensor]:
    """Per stage, how much the share of kept tokens grows when the scores [B, N] rise by a width: their density at the
    threshold, at most 1/4."""
    there = [(score / width).sigmoid() for score, width in zip(scores, widths, strict=True)]
    return [(one * (1 - one)).mean() for one in there]


@dataclass
class Division:
    """How the stages divide the cost: the shares of the tokens that they keep, up to a common factor of the odds.

    The scores say which tokens are kept, thresholds how many, and this is what thresholds are held to. A threshold left
    to the gradient alone runs away in a short training: the part of the gradient that moves all scores together is the
    same for every token and adds up, so that a stage comes to keep everything or nothing before its selector knows
    which tokens matter, and optimizers that divide by the gradient's size make it no slower.

    Attributes:
        shares: of the tokens, one for each stage.
        rate: at which the division follows what the scores' gradient asks for; 0 keeps it as it is.
    """

    shares: list[float]
    rate: float

    @classmethod
    def of(cls, model: ToFe, rate: float) -> Division:
        """Equal shares; where tokens are discarded, each stage keeps half of those that are left."""
        return cls([0.5 ** (stage + 1 if model.discards else 1) for stage in range(len(model.stages))], rate)

    def wanted(self, model: ToFe, cost: float) -> list[float]:
        """The shares that cost this much."""
        return _shares_for(model, cost, self.shares)

    def follow(self, wanted: Sequence[float], kept: Sequence[float]) -> None:
        """After a step that kept other shares than those wanted, for its scores had moved."""
        moved = [
            _odds(share) + self.rate * (_odds(got) - _odds(share)) for share, got in zip(wanted, kept, strict=True)
        ]
        self.shares = [1 / (1 + math.exp(-one)) for one in moved]


def move_towards(
    model: ToFe,
    wanted: Sequence[float],
    kept: Sequence[float],
    rates: Sequence[float],
    widths: Sequence[float],
) -> None:
    """Moves the threshold of every stage a part of the way that the step's images ask for.

    Args:
        model: its selectors are changed in place.
        wanted: per stage, share of the tokens to come to.
        kept: per stage, share of the tokens that the step kept.
        rates, widths: see `crossing_rates` and `crossing_widths`.
    """
    for stage, (share, got, rate, width) in enumerate(zip(wanted, kept, rates, widths, strict=True)):
        move = _GAIN * (share - got) / max(rate, _LOWEST_RATE)
        _raise_score(model, stage, width * min(max(move, -_LARGEST_MOVE), _LARGEST_MOVE))


Measure = Callable[[], Sequence[Tensor]]
"""Per stage, the scores of all tokens of some images as they are in use, -infinity where a token is gone."""


def set_thresholds(model: ToFe, budget: float, measure: Measure) -> list[float]:
    """Sets the threshold of every stage so that the mean cost is the budget.

    What the stages keep now tells how they share the cost: the odds of being kept change by one factor for all of them.
    A stage's threshold is a quantile of its scores, found after those before it, for what they keep changes its scores.

    Args:
        model: its selectors are changed in place.
        budget: share of the dense MACs.
        measure: called with the model as it then is, once more than there are stages.

    Returns:
        The shares of the tokens that the stages keep on these images.
    """
    wanted = _shares_for(model, budget, [float((scores > 0).float().mean()) for scores in measure()])
    for stage, share in enumerate(wanted):
        _raise_score(model, stage, -_quantile(measure()[stage], share))
    return [float((scores > 0).float().mean()) for scores in measure()]


def _shares_for(model: ToFe, budget: float, shares: Sequence[float]) -> list[float]:
    """Shares that cost the budget, with the same odds ratios between stages as `shares`."""
    odds = [_odds(share) for share in shares]
    low, high = -_FAR, _FAR
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = [1 / (1 + math.exp(-(one + middle))) for one in odds]
        low, high = (middle, high) if share_of_dense(model, found) < budget else (low, middle)
    return found


def _odds(share: float) -> float:
    """Their logarithm; of a share of all or none, which has no odds, those of almost all or none."""
    inside = min(max(share, _EXTREME), 1 - _EXTREME)
    return math.log(inside / (1 - inside))


def _quantile(scores: Tensor, share: float) -> float:
    """The threshold above which this share of the scores lies: halfway between two of them."""
    finite = scores.flatten().sort(descending=True).values
    kept = min(max(round(share * len(finite)), 1), len(finite) - 1)
    pair = finite[kept - 1 : kept + 1].double()
    return float(pair.mean()) if pair.isfinite().all() else float(pair[0]) - 1.0


def _raise_score(model: ToFe, stage: int, by: float) -> None:
    bias = model.stages[stage].get_submodule("selector.out").get_parameter("bias")
    add_to(bias, torch.tensor([by, 0.0], device=bias.device))


def budget_notes(model: ToFe, budget: float, cost: float, kept: Sequence[float]) -> list[str]:
    """What a user must know of a finished run: a budget that was missed, and stages that decide nothing."""
    notes = []
    if abs(cost - budget) > _MET:
        notes.append(
            f"The budget was missed: the network costs {cost:.1%} of its dense backbone, and was to cost {budget:.1%}. "
            "Train for more epochs, or with more steps in each (a smaller `batch_size`)."
        )
    for stage, share in enumerate(kept):
        tokens = share * model.tokens
        if tokens < _ALMOST_NONE:
            notes.append(f"Stage {stage} keeps almost no token ({tokens:.1f} of {model.tokens}): it only estimates.")
        elif tokens > model.tokens - _ALMOST_ALL:
            notes.append(f"Stage {stage} keeps every token: its selector costs time and saves nothing.")
    return notes
