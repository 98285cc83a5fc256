"""Differences between two models' outputs, gathered over batches without keeping them."""

from __future__ import annotations

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
        """Share of images whose best class is the same."""
        return self._agreeing / self.samples

    def to_dict(self) -> dict[str, float]:
        """The `logits` object of verify.json."""
        return {"max_abs": self.max_abs, "mean_abs": self._sum_abs / self._values, "cosine_min": self.cosine_min}


@dataclass
class StageDifference:
    """Running difference of one stage: who was selected, and the stage's tokens under the same selection."""

    index: int
    _common: int = 0
    _kept: int = 0
    max_abs: float | None = None

    def add_selection(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds two selections, bool [B, N] in spatial order."""
        self._common += int((reference & deployed).sum())
        self._kept += int(reference.sum())

    def add_tokens(self, reference: Tensor, deployed: Tensor) -> None:
        """Adds the tokens [B, L, C] after the stage, both computed on the deployed model's selection."""
        gap = (reference.double() - deployed.double()).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
        self.max_abs = max(self.max_abs or 0.0, float(gap.max()))

    @property
    def overlap(self) -> float:
        """Share of kept tokens that both models chose."""
        return self._common / self._kept if self._kept else 1.0

    def to_dict(self) -> dict[str, float | int | None]:
        """An entry of `stages` in verify.json."""
        return {"index": self.index, "selection_overlap": self.overlap, "max_abs_same_selection": self.max_abs}
