"""What fixed keep counts cost: the fixed path against the threshold path, both in PyTorch, so export has no part."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.documents.verification import (
    Check,
    ThresholdAccuracy,
    ThresholdComparison,
    ThresholdCost,
    ThresholdStage,
)
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.outputs import SparseOutput, best_class
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.model.tofe import ToFe
from tofe_export.parity.metrics import LogitsDifference, NotFinite, finite


@dataclass
class StageCounts:
    """One stage over many images.

    Attributes:
        keep: tokens of every image that the fixed path keeps.
        counts: tokens kept by the threshold path -> images.
        shared, either: tokens that both paths keep, and that either does, over all images.
        margins: how far from 0, the threshold, the scores of the others lie.
    """

    keep: int
    counts: Counter[int] = field(default_factory=Counter)
    shared: int = 0
    either: int = 0
    margins: list[float] = field(default_factory=list)

    def document(self, index: int) -> ThresholdStage:
        """An entry of `threshold.stages` in verify.json."""
        kept = list(self.counts.elements())
        return ThresholdStage(
            index=index,
            keep=self.keep,
            kept_mean=statistics.fmean(kept),
            kept_std=statistics.pstdev(kept),
            kept_min=min(kept),
            kept_max=max(kept),
            histogram=tuple(sorted(self.counts.items())),
            overlap=self.shared / self.either if self.either else 1.0,
            margin_median=_median(self.margins),
        )


def _median(values: Sequence[float]) -> float | None:
    """None without values, or where one of them is not finite: sorted among numbers, a NaN stands anywhere."""
    return finite(statistics.median(values)) if values and all(map(math.isfinite, values)) else None


@dataclass
class ThresholdDifference:
    """The fixed path against the threshold path, over many images; cost is per image."""

    stages: list[StageCounts]
    gmacs_fixed: float
    gmacs_dense: float
    logits: LogitsDifference = field(default_factory=LogitsDifference)
    scores_not_finite: NotFinite = field(default_factory=NotFinite)
    labelled: int = 0
    correct_threshold: int = 0
    correct_fixed: int = 0
    _gmacs: list[float] = field(default_factory=list)

    @property
    def check(self) -> Check | None:
        """That PyTorch's threshold path gives numbers; None where it does. A difference is not a fault."""
        problems = self.scores_not_finite.problems("keep scores on the threshold path", "PyTorch")
        if not problems and (image := self.logits.not_finite.reference):
            problems = [f"PyTorch's own logits on the threshold path are not finite for image {image}."]
        return Check.of("threshold", problems) if problems else None

    def add(
        self, model: ToFe, single: SparseOutput, kept_fixed: Sequence[Tensor], features: bool, name: str = ""
    ) -> None:
        """One image: its threshold path, and the tokens bool [1, N] that the fixed path keeps in each stage."""
        if single.stages:
            names = [name] if name else []
            self.scores_not_finite.add(torch.cat([trace.scores for trace in single.stages], dim=1), names=names)
        counts = [int((trace.scores > 0).sum()) for trace in single.stages]
        layout = Layout(model.tokens, True, model.discards, model.fuses)
        masks = kept_masks({trace.index: trace.perm for trace in single.stages}, counts, layout)
        for stage, trace, count, mask, fixed in zip(self.stages, single.stages, counts, masks, kept_fixed, strict=True):
            stage.counts[count] += 1
            stage.shared += int((mask & fixed).sum())
            stage.either += int((mask | fixed).sum())
            if not model.discards:  # else the scores are of the tokens that are left, in another order
                stage.margins += trace.scores[mask ^ fixed].abs().double().tolist()
        self._gmacs.append(tofe_macs(model, [float(count) for count in counts], features) / 1e9)

    def document(self) -> ThresholdComparison:
        """The `threshold` of verify.json."""
        accuracy = None
        if self.labelled:
            accuracy = ThresholdAccuracy(
                threshold=self.correct_threshold / self.labelled, fixed=self.correct_fixed / self.labelled
            )
        return ThresholdComparison(
            samples=self.logits.samples,
            top1_agreement=self.logits.top1_agreement,
            kl_mean=finite(self.logits.kl_mean),
            accuracy=accuracy,
            gmacs=ThresholdCost(
                threshold=statistics.fmean(self._gmacs), fixed=self.gmacs_fixed, dense=self.gmacs_dense
            ),
            stages=tuple(stage.document(index) for index, stage in enumerate(self.stages)),
        )


@torch.inference_mode()
def against_threshold(
    model: ToFe, keep: Sequence[int], batches: Iterable[Batch], labelled: bool, features: bool = False
) -> ThresholdDifference:
    """Runs both paths on the same images.

    Args:
        model: a network whose selector has a threshold.
        keep: keep counts of the fixed path.
        batches: preprocessed images, with labels where there are any.
        labelled: the labels are the network's own classes.
        features: the deployed model returns features too, which costs more.
    """
    result = ThresholdDifference(
        [StageCounts(count) for count in keep],
        tofe_macs(model, [float(count) for count in keep], features) / 1e9,
        dense_macs(model.vit) / 1e9,
    )
    layout = Layout(model.tokens, True, model.discards, model.fuses)
    for batch in batches:
        fixed = model.forward_fixed(batch.images, FixedPath(tuple(keep)))
        singles = model.forward_threshold(batch.images)
        perms = {trace.index: trace.perm for trace in fixed.stages}
        all_kept = torch.ones(len(batch.names), model.tokens, dtype=torch.bool)
        masks = kept_masks(perms, keep, layout) if perms else [all_kept] * len(keep)
        for place, single in enumerate(singles):
            result.add(model, single, [mask[place : place + 1] for mask in masks], features, batch.names[place])
        by_threshold = torch.cat([single.logits for single in singles])
        result.logits.add(by_threshold, fixed.logits, batch.names)
        if labelled and batch.labels is not None:
            result.labelled += len(batch.labels)
            result.correct_threshold += int((best_class(by_threshold) == batch.labels).sum())
            result.correct_fixed += int((best_class(fixed.logits) == batch.labels).sum())
    return result
