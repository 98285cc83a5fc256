"""Steering towards the budget during training: the cost that each step aims at, how the stages divide it, and the
thresholds and prices that hold them there. Which tokens go is left to the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.documents.training_recipe import ToFeTable
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe
from tofe_export.training.sharing import add_to

_GAIN = 0.3  # of a step towards the share that its images would need
_LARGEST_MOVE = 0.5  # of a threshold in one step, in widths: scores may be all alike, or far from it
_SMALLEST_WIDTH = 1e-6
_LOWEST_RATE = 1e-6
_PRICE_RATE = 1.0  # at which moves of a threshold, in widths, change the price of its stage
_HIGHEST_PRICE = 100.0
_EXTREME = 0.005  # a share of all or none has no odds
_FAR, _HALVINGS = 20.0, 30


def share_of_dense(model: ToFe, kept: Sequence[float]) -> float:
    """MACs as a share of the dense backbone's, with these shares of the tokens kept."""
    return tofe_macs(model, [share * model.tokens for share in kept]) / dense_macs(model.vit)


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


class Steering:
    """What a phase steers with.

    The scores say which tokens are kept, thresholds how many, and every step moves each stage's threshold towards its
    share. That alone does not hold it. The gradient wants more tokens kept, the same for every token, and an optimizer
    that divides by the gradient's size is never too weak: scores run away from a threshold that is moved against it, to
    stages that keep everything or nothing before their selectors know which tokens matter. So keeping tokens has a
    price in each stage, which rises while its threshold must be moved against the gradient. At the right price both are
    in balance (the method of multipliers; Bertsekas, Constrained Optimization and Lagrange Multiplier Methods, 1982).

    Attributes:
        target: the cost to aim at.
        shares: of the tokens, one for each stage, up to a common factor of their odds: how the stages divide the cost.
            Equal at first; where tokens are discarded, each stage begins with half of those that are left. With
            `count_rate` a stage whose tokens are worth more than the others' comes to keep more.
        prices: of a share of the tokens, one for each stage, in units of the loss.
    """

    def __init__(self, model: ToFe, settings: ToFeTable) -> None:
        self.model, self.count_rate = model, settings.count_rate
        self.target = Target.of(model, settings)
        self.shares = [0.5 ** (stage + 1 if model.discards else 1) for stage in range(len(model.stages))]
        self.prices = [0.0] * len(model.stages)
        self._asked: tuple[float, list[float]] | None = None  # what `_found` is for: a search of milliseconds
        self._found: list[float] = []

    def wanted(self, progress: float) -> list[float]:
        """Shares of the tokens that the stages are to keep when this share of the phase is done."""
        asked = self.target.at(progress), self.shares
        if asked != self._asked:
            self._asked, self._found = asked, shares_for(self.model, *asked)
        return self._found

    def charge(self, kept: Tensor, progress: float) -> Tensor:
        """The price of what the stages keep beyond what they are to: a part of the loss. `kept` [S] are shares."""
        wanted, prices = (kept.new_tensor(values) for values in (self.wanted(progress), self.prices))
        return (prices * (kept - wanted)).sum()

    def step(self, progress: float, kept: Sequence[float], rates: Sequence[float], widths: Sequence[float]) -> None:
        """Moves thresholds, prices and the division after a step.

        Args:
            progress: share of the phase that is done.
            kept: per stage, share of the tokens that the step kept.
            rates, widths: see `crossing_rates` and `crossing_widths`.
        """
        moves = move_towards(self.model, self.wanted(progress), kept, rates, widths)
        changed = (price - _PRICE_RATE * move for price, move in zip(self.prices, moves, strict=True))
        self.prices = [min(max(price, -_HIGHEST_PRICE), _HIGHEST_PRICE) for price in changed]
        if self.count_rate:
            mean = sum(self.prices) / len(self.prices)
            worth = [self.count_rate * (price - mean) for price in self.prices]
            self.shares = [_share(_odds(share) + more) for share, more in zip(self.shares, worth, strict=True)]

    def saved(self) -> dict[str, list[float]]:
        """What a resumed run goes on with."""
        return {"shares": self.shares, "prices": self.prices}

    def restore(self, saved: Mapping[str, Sequence[float]]) -> None:
        """The inverse of `saved`."""
        self.shares, self.prices = ([float(value) for value in saved[name]] for name in ("shares", "prices"))


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


def move_towards(
    model: ToFe,
    wanted: Sequence[float],
    kept: Sequence[float],
    rates: Sequence[float],
    widths: Sequence[float],
) -> list[float]:
    """Moves the threshold of every stage a part of the way that the step's images ask for.

    Args:
        model: its selectors are changed in place.
        wanted: per stage, share of the tokens to come to.
        kept: per stage, share of the tokens that the step kept.
        rates, widths: see `crossing_rates` and `crossing_widths`.

    Returns:
        By how many widths the scores of each stage were raised.
    """
    moves = []
    for stage, (share, got, rate, width) in enumerate(zip(wanted, kept, rates, widths, strict=True)):
        move = _GAIN * (share - got) / max(rate, _LOWEST_RATE)
        moves.append(min(max(move, -_LARGEST_MOVE), _LARGEST_MOVE))
        raise_score(model, stage, width * moves[-1])
    return moves


def shares_for(model: ToFe, budget: float, shares: Sequence[float]) -> list[float]:
    """Shares that cost the budget, with the same odds ratios between stages as `shares`."""
    odds = [_odds(share) for share in shares]
    low, high = -_FAR, _FAR
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        found = [_share(one + middle) for one in odds]
        low, high = (middle, high) if share_of_dense(model, found) < budget else (low, middle)
    return found


def _odds(share: float) -> float:
    """Their logarithm; of a share of all or none, which has no odds, those of almost all or none."""
    inside = min(max(share, _EXTREME), 1 - _EXTREME)
    return math.log(inside / (1 - inside))


def _share(odds: float) -> float:
    return 1 / (1 + math.exp(-odds))


def raise_score(model: ToFe, stage: int, by: float) -> None:
    """All scores of a stage, which lowers its threshold."""
    bias = model.stages[stage].get_submodule("selector.out").get_parameter("bias")
    add_to(bias, torch.tensor([by, 0.0], device=bias.device))
