"""How far two deployed forms of one model agree: the same logits, classes and tokens on the same images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tofe_export.data.images import Batch
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.runners.base import LOGITS, Runner
from tofe_export.verify.metrics import LogitsDifference
from tofe_export.verify.stages import StageDifference
from tofe_export.verify.tolerances import ACCURACY_LOST, TOLERANCES


@dataclass
class Agreement:
    """What was found about `precision`, against the reference."""

    precision: str
    logits: LogitsDifference = field(default_factory=LogitsDifference)
    stages: dict[int, StageDifference] = field(default_factory=dict)
    labelled: int = 0
    correct_reference: int = 0
    correct: int = 0

    @property
    def least_overlap(self) -> float:
        """Selection overlap of the stage where it is least; 1 where nothing is selected."""
        return min((stage.overlap for stage in self.stages.values()), default=1.0)

    @property
    def accuracy_lost(self) -> float | None:
        """Share of the labelled images, reference minus this; None without labels."""
        return (self.correct_reference - self.correct) / self.labelled if self.labelled else None

    @property
    def failures(self) -> list[str]:
        """One sentence per limit of this precision that does not hold."""
        limit = TOLERANCES[self.precision]
        found = [
            f"Stage {stage.index} selects other tokens: overlap {stage.overlap:.4f}, not {limit.selection_overlap}."
            for stage in self.stages.values()
            if stage.overlap < limit.selection_overlap
        ]
        if not self.logits.cosine_min >= limit.cosine_min:
            found.append(
                f"The least cosine of the logits is {self.logits.cosine_min:.4f}; {limit.cosine_min} is asked."
            )
        if self.logits.top1_agreement < limit.top1_agreement:
            found.append(
                f"Only {self.logits.top1_agreement:.2%} of the images get the same class; "
                f"{limit.top1_agreement:.0%} is asked."
            )
        if self.accuracy_lost is not None and self.accuracy_lost > ACCURACY_LOST:
            found.append(f"It loses {self.accuracy_lost:.1%} of accuracy; {ACCURACY_LOST:.0%} is allowed.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """An entry of `agreement` in quantize.json."""
        accuracy = None
        if self.labelled:
            accuracy = {"reference": self.correct_reference / self.labelled, "deployed": self.correct / self.labelled}
        return {
            "precision": self.precision,
            "samples": self.logits.samples,
            "top1_agreement": self.logits.top1_agreement,
            "accuracy": accuracy,
            "logits": self.logits.to_dict(),
            "stages": [{"index": stage.index, "selection_overlap": stage.overlap} for stage in self.stages.values()],
            "failures": self.failures,
        }


def agree(
    reference: Runner,
    others: Mapping[str, Runner],
    keep: Sequence[int],
    layout: Layout,
    batches: Iterable[Batch],
    labelled: bool,
) -> list[Agreement]:
    """Runs all of them on the same images, each image once.

    Args:
        reference: returns logits, and per-stage perm under its tapped names.
        others: precision (a key of `TOLERANCES`) -> what to judge; same outputs.
        keep: keep count per stage.
        layout: how tokens lie between stages.
        batches: preprocessed images, with labels where there are any.
        labelled: the labels are the network's own classes.
    """
    found = [Agreement(precision) for precision in others]
    for batch in batches:
        images = batch.images.numpy()
        expected = {name: torch.from_numpy(value) for name, value in reference.run(images).items()}
        ours = _masks(expected, keep, layout)
        for result, runner in zip(found, others.values(), strict=True):
            outputs = {name: torch.from_numpy(value) for name, value in runner.run(images).items()}
            result.logits.add(expected[LOGITS], outputs[LOGITS])
            for stage, mask in _masks(outputs, keep, layout).items():
                result.stages.setdefault(stage, StageDifference(stage)).add_selection(ours[stage], mask)
            if labelled and batch.labels is not None:
                result.labelled += len(batch.labels)
                result.correct_reference += int((expected[LOGITS].argmax(1) == batch.labels).sum())
                result.correct += int((outputs[LOGITS].argmax(1) == batch.labels).sum())
    return found


def _masks(outputs: Mapping[str, torch.Tensor], keep: Sequence[int], layout: Layout) -> dict[int, torch.Tensor]:
    """Stage -> bool [B, N], for the stages that select."""
    names = {stage: tap_name(stage, "perm") for stage in range(len(keep))}
    perms = {stage: outputs[name] for stage, name in names.items() if name in outputs}
    masks = kept_masks(perms, keep, layout)
    return {stage: masks[stage] for stage in perms}
