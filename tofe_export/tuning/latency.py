"""Latency of a whole network over its keep counts, from a few probes.

Stages run one after the other, so their costs add up, and the cost of a stage follows the staircase of one product
(`staircase.py`): ms = a + sum over stages of b_s * step(k_s), with a and b_s >= 0 fitted to the probes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from tofe_export.documents.tuning import Probe, Step

_FEW, _MANY = 0.15, 0.8  # shares of the tokens between which a stage is probed


@dataclass(frozen=True)
class LatencyModel:
    """The formula above.

    Attributes:
        constant: a, milliseconds.
        per_stage: b_s.
        steps: latency of the product for 1..N kept tokens.
    """

    constant: float
    per_stage: tuple[float, ...]
    steps: tuple[float, ...]

    def predict_ms(self, keep: Sequence[int]) -> float:
        """Latency with these keep counts."""
        return self.constant + sum(
            slope * self.steps[count - 1] for slope, count in zip(self.per_stage, keep, strict=True)
        )


def probe_counts(base: Sequence[int], tokens: int, falling: bool) -> list[tuple[int, ...]]:
    """Which keep counts to time: `base`, and from there each stage with few tokens and with many.

    Where tokens are discarded (`falling`), counts must not rise from stage to stage, so the others follow.
    """
    vectors = [tuple(base)]
    for stage in range(len(base)):
        for share in (_FEW, _MANY):
            changed = list(base)
            changed[stage] = max(1, round(share * tokens))
            if falling:
                changed[:stage] = [max(count, changed[stage]) for count in changed[:stage]]
                changed[stage:] = [min(count, changed[stage]) for count in changed[stage:]]
            vectors.append(tuple(changed))
    return list(dict.fromkeys(vectors))


def fit(probes: Sequence[Probe], staircase: Sequence[Step]) -> LatencyModel:
    """The model that comes closest to the probes, each weighed by its own latency."""
    steps = tuple(step.ms for step in staircase)
    rows: NDArray[np.float64] = np.array([[1.0, *(steps[count - 1] for count in probe.keep)] for probe in probes])
    measured = np.array([probe.ms for probe in probes])
    solution, _ = nnls(rows / measured[:, None], np.ones(len(probes)))
    return LatencyModel(float(solution[0]), tuple(float(value) for value in solution[1:]), steps)
