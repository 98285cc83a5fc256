"""Differences between two models' outputs, gathered over batches without keeping them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class LogitsDifference:
    """Running difference of logits [B, classes]: reference against deployed, in float64."""

    samples: int = 0
    max_abs: float = 0.0
    cosine_min: float = 1.0
    largest: float = 0.0
    _sum_abs: float = 0.0
    _values: int = 0
    _agreeing: int = 0

    def add(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds a batch. Values that are not finite count as an infinite difference."""
        a, b = reference.double(), deployed.double()
        gap = (a - b).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
        cosine = torch.nn.functional.cosine_similarity(a, b, dim=1).nan_to_num(nan=-1.0)
        self.samples += a.shape[0]
        self.max_abs = max(self.max_abs, float(gap.max()))
        self.cosine_min = min(self.cosine_min, float(cosine.min()))
        self.largest = max(self.largest, float(a.abs().max()))
        self._sum_abs += float(gap.sum())
        self._values += gap.numel()
        self._agreeing += int((a.argmax(1) == b.argmax(1)).sum())

    @property
    def top1_agreement(self) -> float:
        """Share of images whose best class is the same; 1.0 when none was seen."""
        return self._agreeing / self.samples if self.samples else 1.0

    def to_dict(self) -> dict[str, float | None]:
        """The `logits` object of verify.json; None where a value is not finite, which JSON cannot say."""
        return {
            "max_abs": finite(self.max_abs),
            "mean_abs": finite(self._sum_abs / self._values),
            "cosine_min": self.cosine_min,
        }


@dataclass
class FeaturesDifference:
    """Running difference of features [B, N, C]: reference against deployed, on the same selection."""

    samples: int = 0
    max_abs: float = 0.0
    largest: float = 0.0

    def add(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds a batch. Values that are not finite count as an infinite difference."""
        gap = (reference.double() - deployed.double()).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
        self.samples += reference.shape[0]
        self.max_abs = max(self.max_abs, float(gap.max()))
        self.largest = max(self.largest, float(reference.abs().max()))

    def to_dict(self) -> dict[str, float | None]:
        """The `features` object of verify.json."""
        return {"max_abs": finite(self.max_abs), "largest": self.largest}


@dataclass
class StageDifference:
    """Running difference of one stage: who was selected, and the stage's tokens under the same selection.

    Attributes:
        index: stage number.
        kept: tokens that the reference kept, over all images.
        flipped: those of them that the deployed model did not keep.
        max_abs: largest difference of a token under the same selection; None before any was seen.
        score_gap: by how much a kept token falls short of a frozen one, in the reference's scores.
        largest_score: of the reference, for scale.
    """

    index: int
    kept: int = 0
    flipped: int = 0
    max_abs: float | None = None
    score_gap: float = 0.0
    largest_score: float = 0.0

    def add_selection(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds two selections, bool [B, N] in spatial order."""
        self.kept += int(reference.sum())
        self.flipped += int((reference & ~deployed).sum())

    def add_scores(self, reference: Tensor, perm: Tensor, keep: int) -> None:
        """Adds the reference's scores [B, n] of the tokens that the deployed model ranked by `perm` [B, n].

        The gap is how far the least of its `keep` first lies below the greatest of the rest: 0 for the same choice,
        tiny for a near-tie.
        """
        ranked = reference.double().gather(1, perm.long())
        gap = (ranked[:, keep:].amax(1) - ranked[:, :keep].amin(1)).nan_to_num(nan=float("inf"))
        self.score_gap = max(self.score_gap, float(gap.max()))
        self.largest_score = max(self.largest_score, float(reference.abs().max()))

    def add_tokens(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds the tokens [B, L, C] after the stage, both computed on the deployed model's selection."""
        gap = (reference.double() - deployed.double()).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
        self.max_abs = max(self.max_abs or 0.0, float(gap.max()))

    @property
    def overlap(self) -> float:
        """Share of kept tokens that both models chose."""
        return 1 - self.flipped / self.kept if self.kept else 1.0

    def to_dict(self) -> dict[str, float | int | None]:
        """An entry of `stages` in verify.json."""
        return {
            "index": self.index,
            "selection_overlap": self.overlap,
            "score_gap": finite(self.score_gap),
            "max_abs_same_selection": finite(self.max_abs),
        }


def finite(value: float | None) -> float | None:
    """The value, or None where it is infinite or no number."""
    return value if value is not None and math.isfinite(value) else None
