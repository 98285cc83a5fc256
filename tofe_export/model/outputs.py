"""What the three paths of a ToFe network return."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class MaskedOutput:
    """What the masked path returns.

    Attributes:
        logits: [B, classes].
        masks: per stage [B, N], 1.0 where the token went through the blocks.
        estimates: per stage that brings frozen tokens back, the approximator's output [B, N, C].
        scores: per stage float32 [B, N], what the masks were chosen by, -infinity where a token was discarded before;
            without gradients.
        features: patch tokens after the final norm in spatial order [B, N, C], of a network made for them
            (`ToFeConfig.dense_output`).
    """

    logits: Tensor
    masks: list[Tensor]
    estimates: list[Tensor]
    scores: list[Tensor]
    features: Tensor | None = None


@dataclass(frozen=True)
class StageTrace:
    """One partitioned stage of the threshold or fixed path.

    Attributes:
        index: stage number; stages that keep every token have no trace.
        scores: float32 [B, n], in the order the stage found its tokens.
        perm: int32 [B, n], rank to index in that order.
        tokens: what the stage handed on, [B, L, C].
    """

    index: int
    scores: Tensor
    perm: Tensor
    tokens: Tensor


@dataclass(frozen=True)
class SparseOutput:
    """What the threshold and fixed paths return.

    Attributes:
        logits: [B, classes].
        stages: one trace per partitioned stage.
        features: patch tokens after the final norm in spatial order [B, N, C], where the path includes them.
    """

    logits: Tensor
    stages: list[StageTrace] = field(default_factory=list)
    features: Tensor | None = None


def best_class(logits: Tensor) -> Tensor:
    """int64 [B] of logits [B, classes]: the greatest; -1, no class at all, where an image's logits are not finite."""
    return logits.argmax(dim=1).masked_fill(~logits.isfinite().all(dim=1), -1)
