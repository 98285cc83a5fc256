"""Differences between two models' logits and features, gathered over batches without keeping them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor

from tofe_export.documents.verification import FeaturesDrift, LogitsDrift
from tofe_export.documents.verification import NotFinite as NotFiniteImages
from tofe_export.extremes import largest, least
from tofe_export.files.names import readable
from tofe_export.model.outputs import best_class
from tofe_export.parity.sums import ExactSum


@dataclass
class NotFinite:
    """The first image with NaN or an infinity among its values, on each side; "" where every value is a number."""

    reference: str = ""
    deployed: str = ""
    _images: int = 0
    _places: tuple[int, int] = (-1, -1)

    def add(self, reference: Tensor, deployed: Tensor | None = None, names: Sequence[str] = ()) -> None:
        """Adds a batch, [B, ...] each; without names, images go by their number."""
        known = names or [f"number {self._images + place + 1}" for place in range(len(reference))]
        ours, theirs = self._places
        if not self.reference and (place := _first_not_finite(reference)) is not None:
            self.reference, ours = readable(known[place]), self._images + place
        if deployed is not None and not self.deployed and (place := _first_not_finite(deployed)) is not None:
            self.deployed, theirs = readable(known[place]), self._images + place
        self._places = ours, theirs
        self._images += len(reference)

    def merge(self, other: NotFinite) -> None:
        """Takes over what the next process met, which had every n-th image: the first one that
        was read stays the first."""
        (ours, theirs), (their_ours, their_theirs) = self._places, other._places
        if other.reference and (not self.reference or their_ours < ours):
            self.reference, ours = other.reference, their_ours
        if other.deployed and (not self.deployed or their_theirs < theirs):
            self.deployed, theirs = other.deployed, their_theirs
        self._places = ours, theirs
        self._images += other._images

    def problems(self, what: str, reference: str) -> list[str]:
        """A sentence for each side that is not finite; `what` was compared with that of `reference`."""
        sides = ((f"{reference}'s own {what}", self.reference), (f"The deployed model's {what}", self.deployed))
        return [f"{values} are not finite for image {image}." for values, image in sides if image]

    def document(self) -> NotFiniteImages:
        """`not_finite` in verify.json."""
        return NotFiniteImages(reference=self.reference or None, deployed=self.deployed or None)


def _first_not_finite(values: Tensor) -> int | None:
    wrong = ~values.isfinite().flatten(1).all(dim=1)
    return int(wrong.int().argmax()) if wrong.any() else None


@dataclass
class OutputDifference:
    """Running difference of an output [B, ...]: reference against deployed, in float64."""

    samples: int = 0
    max_abs: float = 0.0
    cosine_min: float = 1.0
    largest: float = 0.0
    not_finite: NotFinite = field(default_factory=NotFinite)
    _sum_abs: ExactSum = field(default_factory=ExactSum)
    _values: int = 0

    def merge(self, other: Self) -> None:
        """Adds what another process found on other images."""
        self.samples += other.samples
        self.max_abs = largest(self.max_abs, other.max_abs)
        self.cosine_min = least(self.cosine_min, other.cosine_min)
        self.largest = largest(self.largest, other.largest)
        self.not_finite.merge(other.not_finite)
        self._sum_abs.merge(other._sum_abs)
        self._values += other._values

    def add(self, reference: Tensor, deployed: Tensor, names: Sequence[str] = ()) -> None:
        """Adds a batch of the images `names`. Values that are not finite count as an infinite difference."""
        gap = difference(reference, deployed)
        cosine = cosine_similarity(reference.flatten(1), deployed.flatten(1))
        self.not_finite.add(reference, deployed, names)
        self.samples += reference.shape[0]
        self.max_abs = largest(self.max_abs, float(gap.max()))
        self.cosine_min = least(self.cosine_min, float(cosine.min()))
        self.largest = largest(self.largest, float(reference.abs().max()))
        self._sum_abs.add(gap.flatten(1).sum(dim=1))
        self._values += gap.numel()


@dataclass
class LogitsDifference(OutputDifference):
    """Of logits [B, classes], of the classes' probabilities, and of the images that are classified right."""

    kl_max: float = 0.0
    labelled: int = 0
    right_reference: int = 0
    right_deployed: int = 0
    _sum_kl: ExactSum = field(default_factory=ExactSum)
    _agreeing: int = 0

    def merge(self, other: Self) -> None:
        """See `OutputDifference.merge`."""
        super().merge(other)
        self.kl_max = largest(self.kl_max, other.kl_max)
        self.labelled += other.labelled
        self.right_reference += other.right_reference
        self.right_deployed += other.right_deployed
        self._sum_kl.merge(other._sum_kl)
        self._agreeing += other._agreeing

    def add(self, reference: Tensor, deployed: Tensor, names: Sequence[str] = (), labels: Tensor | None = None) -> None:
        """See `OutputDifference.add`; `labels`, int64 [B], are of the network's own classes."""
        super().add(reference, deployed, names)
        kl = kl_divergence(reference, deployed)
        self.kl_max = largest(self.kl_max, float(kl.max()))
        self._sum_kl.add(kl)
        ours, theirs = best_class(reference), best_class(deployed)
        self._agreeing += int(((ours == theirs) & (ours >= 0)).sum())
        if labels is not None:
            self.labelled += len(labels)
            self.right_reference += int((ours == labels).sum())
            self.right_deployed += int((theirs == labels).sum())

    @property
    def top1_agreement(self) -> float:
        """Share of images whose best class is the same; 1.0 when none was seen."""
        return self._agreeing / self.samples if self.samples else 1.0

    @property
    def kl_mean(self) -> float:
        """Mean over images of KL(reference || deployed), in nats."""
        return float(self._sum_kl) / self.samples if self.samples else 0.0

    def document(self) -> LogitsDrift | None:
        """The `logits` of verify.json; None before any image was seen."""
        if not self.samples:
            return None
        return LogitsDrift(
            max_abs=finite(self.max_abs),
            mean_abs=finite(float(self._sum_abs) / self._values),
            cosine_min=self.cosine_min,
            kl_mean=finite(self.kl_mean),
            kl_max=finite(self.kl_max),
        )


class FeaturesDifference(OutputDifference):
    """Of features [B, N, C]."""

    def document(self) -> FeaturesDrift | None:
        """The `features` of verify.json; None before any image was seen."""
        if not self.samples:
            return None
        return FeaturesDrift(max_abs=finite(self.max_abs), cosine_min=self.cosine_min, largest=finite(self.largest))


def difference(reference: Tensor, deployed: Tensor) -> Tensor:
    """|reference - deployed| in float64, infinite where it is not a number. Shapes as given, and alike."""
    gap = (reference.double() - deployed.double()).abs()
    return gap.nan_to_num(nan=float("inf"), posinf=float("inf"))


def cosine_similarity(reference: Tensor, deployed: Tensor) -> Tensor:
    """Per image, [B, n] twice -> float64 [B]; -1 where a value is not finite."""
    cosine = torch.nn.functional.cosine_similarity(reference.double(), deployed.double(), dim=1)
    # Equal rows point the same way however short they are; PyTorch says 0 of rows near zero.
    equal = (reference == deployed).all(dim=1) & reference.isfinite().all(dim=1)
    return cosine.nan_to_num(nan=-1.0).masked_fill(equal, 1.0)


def kl_divergence(reference: Tensor, deployed: Tensor) -> Tensor:
    """KL(softmax(reference) || softmax(deployed)) per image, in nats: [B, classes] twice -> float64 [B].

    Infinite where a value is not finite; rounding below 0 counts as 0.
    """
    p, q = (logits.double().log_softmax(dim=1) for logits in (reference, deployed))
    kl: Tensor = (p.exp() * (p - q)).sum(dim=1)
    return kl.nan_to_num(nan=float("inf"), posinf=float("inf")).clamp(min=0)


def finite(value: float | None) -> float | None:
    """The value, or None where it is infinite or no number."""
    return value if value is not None and math.isfinite(value) else None
