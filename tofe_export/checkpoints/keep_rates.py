"""From shares of tokens to keep counts, rounded as each method's own code rounds them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tofe_export.errors import InputError
from tofe_export.model.selector import CLS_ATTENTION
from tofe_export.model.tofe import ToFe


def counts_of_ratios(ratios: Sequence[float], tokens: int) -> tuple[int, ...]:
    """round(ratio * N) for each stage, at least 1: ToFe's own ratios, learned or given."""
    return tuple(min(tokens, max(1, round(ratio * tokens))) for ratio in ratios)


def counts_of_rate(model: ToFe, rate: float) -> tuple[int, ...]:
    """Keep counts of a published method that keeps `rate` of the tokens at each stage.

    DynamicViT keeps int(N * rate^s) of the N tokens at stage s = 1, 2, ...; EViT keeps ceil(rate * n) of the n tokens
    that are left, its fused token among them (their published inference code).

    Raises:
        InputError: a rate outside 0..1, or a network that is of neither kind.
    """
    if not 0 < rate <= 1:
        message = f"Keep rate {rate:g} is not between 0 and 1."
        raise InputError(message, "Give a share of the tokens, such as 0.7.", code="keep-rate-range", rate=rate)
    if not model.stages or not model.discards:
        raise InputError(
            "A keep rate belongs to methods that discard tokens (DynamicViT, EViT); this network is of another kind.",
            "Omit `keep_rate`; an export takes `keep`, as counts (96, 49, 27) or ratios (0.5, 0.25, 0.14).",
            code="keep-rate-of-another-method",
        )
    stages = range(1, len(model.stages) + 1)
    if model.config.selector != CLS_ATTENTION:
        return tuple(max(1, int(model.tokens * rate**stage)) for stage in stages)
    counts: list[int] = []
    for _ in stages:
        counts.append(math.ceil(rate * model.arriving(counts)[-1]))
    return tuple(counts)
