"""Compares a deployed model with its checkpoint, stage by stage, on real images.

Two kinds of difference are kept apart. Selection drift: the deployed model chose other tokens. Numerical drift:
with PyTorch forced onto the deployed model's selection, the numbers differ. Another choice is only right where
PyTorch's own scores tie within the tolerance: the score gap says by how much a kept token falls short of a frozen one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from tofe_export.data.images import Batch
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.outputs import SparseOutput
from tofe_export.model.selection import Layout, kept_masks
from tofe_export.model.selector import CLS_ATTENTION
from tofe_export.model.tofe import ToFe
from tofe_export.runners.base import FEATURES, LOGITS, Runner
from tofe_export.verify.metrics import FeaturesDifference, LogitsDifference, StageDifference
from tofe_export.verify.tolerances import TOLERANCES, Tolerance


@dataclass
class Comparison:
    """What was found. `failures` are sentences; the comparison passed when there are none.

    Attributes:
        tolerance: the limits.
        score_scale: scores below it count as being of this size when near-ties are judged.
        samples: images compared.
    """

    tolerance: Tolerance
    score_scale: float = 1.0
    samples: int = 0
    logits: LogitsDifference = field(default_factory=LogitsDifference)
    same_selection: LogitsDifference = field(default_factory=LogitsDifference)
    features: FeaturesDifference = field(default_factory=FeaturesDifference)
    stages: dict[int, StageDifference] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    labelled: int = 0
    correct_reference: int = 0
    correct_deployed: int = 0

    @property
    def failures(self) -> list[str]:
        """One sentence per limit that does not hold, the earliest cause first."""
        limit, found = self.tolerance, list(self.broken)
        for stage in self.stages.values():
            tie = limit.score_gap * max(self.score_scale, stage.largest_score)
            # Of few tokens a single near-tie is a large share, so one is always allowed.
            allowed_flips = max(1.0, (1 - limit.selection_overlap) * stage.kept)
            if stage.flipped > allowed_flips or not stage.score_gap <= tie:
                found.append(
                    f"Stage {stage.index} selected other tokens: overlap {stage.overlap:.4f}, a kept token's score is "
                    f"{stage.score_gap:.1e} below a frozen one's (allowed: {limit.selection_overlap} and {tie:.1e})."
                )
        allowed = limit.logits_max_abs * max(1.0, self.same_selection.largest)
        if not self.same_selection.max_abs <= allowed:
            found.append(
                f"On the same tokens the logits differ by {self.same_selection.max_abs:.2e}, more than {allowed:.2e}."
            )
        allowed = limit.logits_max_abs * max(1.0, self.features.largest)
        if not self.features.max_abs <= allowed:
            found.append(
                f"On the same tokens the features differ by {self.features.max_abs:.2e}, more than {allowed:.2e}."
            )
        if not self.stages and not self.broken and not self.logits.cosine_min >= limit.cosine_min:
            found.append(
                f"The least cosine of the logits is {self.logits.cosine_min:.4f}; {limit.cosine_min} is asked."
            )
        if self.logits.top1_agreement < limit.top1_agreement:
            found.append(
                f"Only {self.logits.top1_agreement:.2%} of the images get the same class; "
                f"{limit.top1_agreement:.0%} is asked."
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """The measured part of verify.json."""
        accuracy = None
        if self.labelled:
            accuracy = {
                "reference": self.correct_reference / self.labelled,
                "deployed": self.correct_deployed / self.labelled,
            }
        return {
            "passed": not self.failures,
            "samples": self.samples,
            "top1_agreement": self.logits.top1_agreement if self.logits.samples else None,
            "accuracy": accuracy,
            "logits": self.logits.to_dict() if self.logits.samples else None,
            "features": self.features.to_dict() if self.features.samples else None,
            "logits_same_selection": self.same_selection.to_dict() if self.same_selection.samples else None,
            "stages": [stage.to_dict() for stage in self.stages.values()],
            "tolerances": vars(self.tolerance),
            "failures": self.failures,
        }


def compare(
    model: ToFe,
    deployed: Runner,
    keep: tuple[int, ...],
    rearranged: bool,
    batches: Iterable[Batch],
    precision: str = "fp32",
    labelled: bool = True,
) -> Comparison:
    """Runs `deployed` and `model` (in PyTorch) on the same images.

    Args:
        model: the reference.
        deployed: what to judge; it returns logits, features or both, and per-stage perm and tokens under their tapped
            names. Without those (an engine built without --taps) only the logits are compared.
        keep: keep counts it was exported with.
        rearranged: exported in the `plugin` form (true) or `elide`.
        batches: preprocessed images, with labels where there are any.
        precision: a key of `TOLERANCES`.
        labelled: the labels are the network's own classes, so accuracy means something.
    """
    # Attention weights are far below 1 and add up to it; scores from logits are of any size.
    scale = 0.0 if model.config.selector == CLS_ATTENTION else 1.0
    result = Comparison(TOLERANCES[precision], scale)
    for batch in batches:
        known = batch if labelled else replace(batch, labels=None)
        with torch.inference_mode():
            _add_batch(result, model, deployed, keep, rearranged, known)
    return result


def _add_batch(
    result: Comparison, model: ToFe, runner: Runner, keep: tuple[int, ...], rearranged: bool, batch: Batch
) -> None:
    outputs = {name: torch.from_numpy(value) for name, value in runner.run(batch.images.numpy()).items()}
    free = model.forward_fixed(batch.images, keep, rearranged, features=FEATURES in outputs)
    result.samples += len(batch.names)
    if LOGITS in outputs:
        logits = outputs[LOGITS]
        result.logits.add(free.logits, logits)
        if batch.labels is not None:
            result.labelled += len(batch.labels)
            result.correct_reference += int((free.logits.argmax(1) == batch.labels).sum())
            result.correct_deployed += int((logits.argmax(1) == batch.labels).sum())
    if any(tap_name(trace.index, "perm") not in outputs for trace in free.stages):
        return
    chosen = {trace.index: outputs[tap_name(trace.index, "perm")] for trace in free.stages}
    broken = [index for index, perm in chosen.items() if not _is_permutation(perm)]
    if broken:
        result.broken.append(f"Stage {broken[0]}: perm is not a permutation of its tokens; the partition is wrong.")
        return
    layout = Layout(model.tokens, rearranged, model.discards, model.fuses)
    theirs = kept_masks(chosen, keep, layout)
    ours = kept_masks({trace.index: trace.perm for trace in free.stages}, keep, layout)
    forced = _forced(model, free, chosen, keep, rearranged, batch.images)
    if LOGITS in outputs:
        result.same_selection.add(forced.logits, outputs[LOGITS])
    if forced.features is not None:
        result.features.add(forced.features, outputs[FEATURES])
    for trace in forced.stages:
        stage = result.stages.setdefault(trace.index, StageDifference(trace.index))
        stage.add_selection(ours[trace.index], theirs[trace.index])
        stage.add_scores(trace.scores, chosen[trace.index], keep[trace.index])
        stage.add_tokens(trace.tokens, outputs[tap_name(trace.index, "tokens")])


def _forced(
    model: ToFe, free: SparseOutput, chosen: dict[int, Tensor], keep: tuple[int, ...], rearranged: bool, images: Tensor
) -> SparseOutput:
    """The reference on the deployed model's selection; the free run itself where both chose alike."""
    if all(torch.equal(trace.perm, chosen[trace.index]) for trace in free.stages):
        return free
    return model.forward_fixed(images, keep, rearranged, chosen, features=free.features is not None)


def _is_permutation(perm: Tensor) -> bool:
    expected = torch.arange(perm.shape[1], dtype=perm.dtype).expand_as(perm)
    return torch.equal(perm.sort(dim=1).values, expected)
