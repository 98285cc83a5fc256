"""How far tokens are from PyTorch's: in absolute numbers, and against how far tokens lie apart from each other.

Beside a channel far larger than the others a wrong token would pass a limit on the largest value in a coarse precision;
what the tokens have in common in such a channel does not count in their spread around their mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.documents.verification import TokensDrift
from tofe_export.extremes import largest
from tofe_export.parity.metrics import difference, finite

_LEAST_SPREAD = 1 / 3  # of a token's norm: which of two tokens nearly alike stands where matters little


@dataclass(frozen=True)
class RowErrors:
    """Errors of every token, float64 [B, L].

    Attributes:
        absolute: largest difference in a channel.
        relative: distance as a share of the spread.
    """

    absolute: Tensor
    relative: Tensor

    @classmethod
    def of(cls, reference: Tensor, deployed: Tensor) -> RowErrors:
        """Of tokens [B, L, C]; infinite where a value is not finite, relative ones in the whole image."""
        gap = difference(reference, deployed)
        # Beside one infinite token of the reference every other one would lie a zeroth of the spread away.
        relative = torch.where(spread(reference).isfinite(), gap.norm(dim=2) / spread(reference), torch.inf)
        return cls(gap.amax(dim=2), relative)


@dataclass(frozen=True)
class TokenLimits:
    """What a token's errors may be."""

    absolute: float
    relative: float

    def exceeded(self, rows: RowErrors) -> Tensor:
        """bool [B, L]."""
        return ~((rows.absolute <= self.absolute) & (rows.relative <= self.relative))

    def hold(self, tokens: TokenDifference) -> bool:
        """Whether none of the tokens exceeds them."""
        return (tokens.max_abs or 0) <= self.absolute and (tokens.max_relative or 0) <= self.relative


@dataclass
class TokenDifference:
    """The largest errors of some tokens; None before any was seen."""

    max_abs: float | None = None
    max_relative: float | None = None

    def add(self, rows: RowErrors, which: Tensor) -> None:
        """Adds the tokens that `which`, bool [B, L], names."""
        if which.any():
            self.max_abs = largest(self.max_abs or 0.0, float(rows.absolute[which].max()))
            self.max_relative = largest(self.max_relative or 0.0, float(rows.relative[which].max()))

    def merge(self, other: TokenDifference) -> None:
        """Adds what another process found on other images."""
        for name in ("max_abs", "max_relative"):
            known = [value for value in (getattr(self, name), getattr(other, name)) if value is not None]
            setattr(self, name, largest(*known) if known else None)

    def document(self) -> TokensDrift:
        """`of_kept` and `of_frozen` in verify.json."""
        return TokensDrift(max_abs=finite(self.max_abs), max_relative=finite(self.max_relative))


def spread(tokens: Tensor) -> Tensor:
    """Root mean square distance of an image's tokens [B, L, C] from their mean: float64 [B, 1], above 0.

    At least a third of their norm; of a single token its norm.
    """
    wide = tokens.double()
    around = (wide - wide.mean(dim=1, keepdim=True)).norm(dim=2)
    floor = (_LEAST_SPREAD if tokens.shape[1] > 1 else 1.0) * wide.norm(dim=2)
    root_mean_square: Tensor = torch.maximum(
        *(rows.pow(2).mean(dim=1, keepdim=True).sqrt() for rows in (around, floor))
    )
    return root_mean_square.clamp(min=torch.finfo(torch.float64).tiny)
