"""What fixed keep counts cost: the fixed path against the threshold path, both in PyTorch, so export has no part."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch

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

    def merge(self, other: StageCounts) -> None:
        """Adds what another process found on other images."""
        self.counts += other.counts
        self.shared += other.shared
        self.either += other.either
        self.margins += other.margins

    def document(self, index: int) -> ThresholdStage:
        """An entry of `threshold.stages` in verify.json."""
        kept, margins = list(self.counts.elements()), self.margins
        return ThresholdStage(
            index=index,
            keep=self.keep,
            kept_mean=statistics.fmean(kept),
            kept_std=statistics.pstdev(kept),
            kept_min=min(kept),
            kept_max=max(kept),
            histogram=tuple(sorted(self.counts.items())),
            overlap=self.shared / self.either if self.either else 1.0,
            # Sorted among numbers, a NaN stands anywhere.
            margin_median=statistics.median(margins) if margins and all(map(math.isfinite, margins)) else None,
        )


@dataclass
class ThresholdDifference:
    """The fixed path against the threshold path, over many images; `gmacs` are of each on the threshold path."""

    stages: list[StageCounts]
    gmacs_fixed: float
    gmacs_dense: float
    logits: LogitsDifference = field(default_factory=LogitsDifference)
    scores_not_finite: NotFinite = field(default_factory=NotFinite)
    gmacs: list[float] = field(default_factory=list)

    def merge(self, other: ThresholdDifference) -> None:
        """Adds what another process found on other images."""
        for stage, more in zip(self.stages, other.stages, strict=True):
            stage.merge(more)
        self.logits.merge(other.logits)
        self.scores_not_finite.merge(other.scores_not_finite)
        self.gmacs += other.gmacs

    @property
    def check(self) -> Check | None:
        """That PyTorch's threshold path gives numbers; None where it does. A difference is not a fault."""
        problems = self.scores_not_finite.problems("keep scores on the threshold path", "PyTorch")
        if not problems and (image := self.logits.not_finite.reference):
            problems = [f"PyTorch's own logits on the threshold path are not finite for image {image}."]
        return Check.of("threshold", problems) if problems else None

    def document(self) -> ThresholdComparison:
        """The `threshold` of verify.json."""
        accuracy = None
        if images := self.logits.labelled:
            right = self.logits.right_reference, self.logits.right_deployed
            accuracy = ThresholdAccuracy(threshold=right[0] / images, fixed=right[1] / images)
        return ThresholdComparison(
            samples=self.logits.samples,
            top1_agreement=self.logits.top1_agreement,
            kl_mean=finite(self.logits.kl_mean),
            accuracy=accuracy,
            gmacs=ThresholdCost(threshold=statistics.fmean(self.gmacs), fixed=self.gmacs_fixed, dense=self.gmacs_dense),
            stages=tuple(stage.document(index) for index, stage in enumerate(self.stages)),
        )


@torch.inference_mode()
def against_threshold(
    model: ToFe, keep: Sequence[int], batches: Iterable[Batch], labelled: bool, features: bool = False
) -> ThresholdDifference:
    """Runs both paths of a network whose selector has a threshold on the same preprocessed images.

    Args:
        model: the network.
        keep: keep counts of the fixed path.
        batches: images, with labels where there are any.
        labelled: the labels are the network's own classes.
        features: the deployed model returns features too, which costs more.
    """
    result = ThresholdDifference(
        [StageCounts(count) for count in keep],
        tofe_macs(model, [float(count) for count in keep], features) / 1e9,
        dense_macs(model.vit) / 1e9,
    )
    layout = Layout.of(model.config.approximator, model.tokens, rearranged=True)
    for batch in batches:
        fixed = model.forward_fixed(batch.images, FixedPath(tuple(keep)))
        singles = model.forward_threshold(batch.images)
        perms = {trace.index: trace.perm for trace in fixed.stages}
        all_kept = torch.ones(len(batch.names), model.tokens, dtype=torch.bool)
        fixed_masks = kept_masks(perms, keep, layout) if perms else [all_kept] * len(keep)
        for place, single in enumerate(singles):
            scores = torch.cat([trace.scores for trace in single.stages], dim=1)
            result.scores_not_finite.add(scores, names=batch.names[place : place + 1])
            counts = [int((trace.scores > 0).sum()) for trace in single.stages]
            masks = kept_masks({trace.index: trace.perm for trace in single.stages}, counts, layout)
            for stage, trace, mask, of_batch in zip(result.stages, single.stages, masks, fixed_masks, strict=True):
                other = of_batch[place : place + 1]
                stage.counts[counts[trace.index]] += 1
                stage.shared += int((mask & other).sum())
                stage.either += int((mask | other).sum())
                if not model.discards:  # else the scores are of the tokens that are left, in another order
                    stage.margins += trace.scores[mask ^ other].abs().double().tolist()
            result.gmacs.append(tofe_macs(model, [float(count) for count in counts], features) / 1e9)
        by_threshold = torch.cat([single.logits for single in singles])
        result.logits.add(by_threshold, fixed.logits, batch.names, batch.labels if labelled else None)
    return result
