"""The means of a running epoch, for whoever watches a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class EpochMeans:
    """Means over the images of an epoch so far.

    Attributes:
        epoch: its title, as `Progress` calls it: "ToFe 3/30".
        loss: the weighted sum.
        accuracy: top-1 on the training images, 0..1.
        kept: share of the tokens kept per stage; empty in the dense phase.
        macs_ratio: MACs as a share of the dense backbone's; None in the dense phase.
        budget: the share that `macs_ratio` is trained towards.
    """

    epoch: str
    loss: float
    accuracy: float
    kept: tuple[float, ...]
    macs_ratio: float | None
    budget: float

    @classmethod
    def of(cls, epoch: str, totals: dict[str, float], images: int, budget: float) -> EpochMeans:
        """From sums over `images` images, by the names of the metrics log."""
        kept = tuple(totals[name] / images for name in sorted(totals) if name.startswith("train_keep_"))
        macs_ratio = totals["train_macs_ratio"] / images if "train_macs_ratio" in totals else None
        return cls(epoch, totals["loss"] / images, totals["accuracy"] / images, kept, macs_ratio, budget)


Watch = Callable[[EpochMeans], None]
"""Called after each training step."""


def unwatched(means: EpochMeans) -> None:
    """Ignores them."""
