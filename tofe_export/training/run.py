"""The options of a run besides its recipe, and its outcome. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tofe_export.bounds import require_within
from tofe_export.training.loop import Evaluation

_MOST_WORKERS = 1024
_MOST_MINUTES = 1e6


@dataclass(frozen=True)
class RunOptions:
    """Where a run finds its images and weights and where it computes: what decides nothing of what it learns.

    Attributes:
        data: `digits`, or whatever `open_source` takes that has labels.
        pretrained: start from timm's weights.
        init: start from these weights.
        workers: processes that decode images; 0 decodes in this one.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        save_minutes: the state is saved each time they have passed within an epoch, and at its end.
        trackers: besides the log files: names of `trackers.TRACKERS`.

    Raises:
        InputError: a value out of its range.
    """

    data: str = "digits"
    pretrained: bool = False
    init: Path | None = None
    workers: int = 0
    device: str = "auto"
    save_minutes: float = 10.0
    trackers: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_within("workers", self.workers, 0, _MOST_WORKERS)
        require_within("save_minutes", self.save_minutes, 0.0, _MOST_MINUTES)


@dataclass(frozen=True)
class Outcome:
    """A finished run, as it is on held-out images.

    Attributes:
        path: of its checkpoint.
        evaluation: of the threshold path.
        dense_accuracy: the dense teacher's.
        budget: MACs as a share of the dense backbone's, as the recipe says.
        notes: what a user must know of it: a missed budget, a stage that decides nothing.
    """

    path: Path
    evaluation: Evaluation
    dense_accuracy: float
    budget: float
    notes: tuple[str, ...] = ()
