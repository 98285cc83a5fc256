"""Sums that several processes can make together: exact, so that who added what first does not matter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from torch import Tensor


@dataclass
class ExactSum:
    """Of float64 values that are not negative; infinite where one of them is."""

    _finite: Fraction = Fraction(0)
    _infinite: bool = False

    def add(self, values: Tensor) -> None:
        """Adds every element."""
        for value in values.double().flatten().tolist():
            if math.isfinite(value):
                self._finite += Fraction(value)
            else:
                self._infinite = True

    def merge(self, other: ExactSum) -> None:
        """Adds what another one holds."""
        self._finite += other._finite
        self._infinite |= other._infinite

    def __float__(self) -> float:
        return math.inf if self._infinite else float(self._finite)
