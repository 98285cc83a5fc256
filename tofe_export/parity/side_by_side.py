"""Compares a deployed model with its checkpoint, stage by stage, on real images.

Two kinds of difference are kept apart. Selection drift: the deployed model chose other tokens. Numerical drift:
with PyTorch forced onto the deployed model's selection, the numbers differ. Another choice is only right where
PyTorch's own scores tie within the tolerance: the score gap says by how much a kept token falls short of a frozen one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tofe_export.artifacts.opened import Opened
from tofe_export.data.images import Batch
from tofe_export.documents.fields import Precision
from tofe_export.errors import TofeError
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import SparseOutput, best_class
from tofe_export.model.selection import kept_masks
from tofe_export.model.tofe import ToFe
from tofe_export.parity.causes import Suspect, find_cause
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.divergence import diverging_modules
from tofe_export.parity.reference import Reference, TorchReference
from tofe_export.parity.stages import StageDifference
from tofe_export.parity.tolerances import TOLERANCES, Tolerance
from tofe_export.runners.base import FEATURES, LOGITS, Runner

_SUSPECTS = 4  # images that are looked into, module by module, when something differs


def compare(
    model: ToFe,
    deployed: Runner,
    path: FixedPath,
    batches: Iterable[Batch],
    precision: Precision = "fp32",
    labelled: bool = True,
    tolerance: Tolerance | None = None,
) -> Comparison:
    """Runs `deployed` and `model` (in PyTorch) on the same images; where they differ, looks for the first module.

    Args:
        model: the reference.
        deployed: what to judge; it returns logits, features or both, and per-stage perm and tokens under their tapped
            names. Without those (an engine built without taps) only the outputs are compared. Where they are a twin's
            that was built apart, its outputs are judged on its own selection, which is not known.
        path: as it was exported.
        batches: preprocessed images, with labels where there are any.
        precision: a key of `TOLERANCES`.
        labelled: the labels are the network's own classes, so accuracy means something.
        tolerance: the limits; None takes those of the precision.
    """
    reference = TorchReference(model, path)
    loop = _Loop(reference, deployed, _begun(reference, deployed, tolerance or TOLERANCES[precision], precision))
    for batch in batches:
        with torch.inference_mode():
            loop.add(batch if labelled else replace(batch, labels=None))
    # An explanation may need one more engine, which may not fit; the result must not be lost with it.
    with contextlib.suppress(TofeError):
        _explain(loop, model, precision)
    return loop.result


def compare_forms(
    reference: Reference,
    forms: Mapping[Precision, Runner],
    batches: Iterable[Batch],
    labelled: bool,
    tolerances: Mapping[Precision, Tolerance] = TOLERANCES,
) -> list[Comparison]:
    """Judges deployed forms of one model by the rules of `compare`, each image read once; looks for no cause.

    Args:
        reference: what they are compared with.
        forms: precision -> what to judge, which returns what `compare` asks for.
        batches, labelled: as in `compare`.
        tolerances: precision -> limits.
    """
    loops = [
        _Loop(reference, runner, _begun(reference, runner, tolerances[precision], precision))
        for precision, runner in forms.items()
    ]
    for batch in batches:
        for loop in loops:
            with torch.inference_mode():
                loop.add(batch if labelled else replace(batch, labels=None))
    return [loop.result for loop in loops]


def _begun(reference: Reference, deployed: Runner, tolerance: Tolerance, precision: Precision) -> Comparison:
    twin = isinstance(deployed, Opened) and deployed.stages_of_twin
    scale = reference.score_scale
    return Comparison(tolerance, scale, stages_of_twin=twin, reference=reference.name, precision=precision)


@dataclass
class _Loop:
    """A comparison under way, and the first batch on which something differed."""

    reference: Reference
    runner: Runner
    result: Comparison
    suspect: Suspect | None = None

    def add(self, batch: Batch) -> None:
        """One batch more."""
        result = self.result
        outputs = {name: torch.from_numpy(value) for name, value in self.runner.run(batch.images.numpy()).items()}
        free = self.reference.run(batch.images, {}, FEATURES in outputs)
        result.samples += len(batch.names)
        if problem := _unlike(free, outputs, self.reference.name):
            result.outputs_broken = problem
            return
        if LOGITS in outputs:
            result.logits.add(free.logits, outputs[LOGITS], batch.names)
            if batch.labels is not None:
                result.labelled += len(batch.labels)
                result.correct_reference += int((best_class(free.logits) == batch.labels).sum())
                result.correct_deployed += int((best_class(outputs[LOGITS]) == batch.labels).sum())
        hidden = any(tap_name(trace.index, tap) not in outputs for trace in free.stages for tap in ("perm", "tokens"))
        if (hidden or result.stages_of_twin) and free.features is not None:
            result.own_features.add(free.features, outputs[FEATURES], batch.names)
        if hidden:
            result.stages_hidden = True
            self._suspect(batch, free, {}, outputs)
            return
        chosen = {trace.index: outputs[tap_name(trace.index, "perm")] for trace in free.stages}
        if self._comparable(free, chosen, outputs):
            self._add_stages(batch, free, chosen, outputs)

    def _comparable(self, free: SparseOutput, chosen: dict[int, Tensor], outputs: dict[str, Tensor]) -> bool:
        """Whether permutations are permutations, and tokens as many as the reference's."""
        for trace in free.stages:
            theirs = outputs[tap_name(trace.index, "tokens")].shape
            if not _is_permutation(chosen[trace.index], trace.perm):
                what = f"Stage {trace.index}: perm is not a permutation of its tokens; the partition is wrong."
            elif theirs != trace.tokens.shape:
                what = (
                    f"Stage {trace.index} hands on {theirs[1]} tokens, where keep counts "
                    f"{', '.join(map(str, self.reference.path.keep))} give {trace.tokens.shape[1]}."
                )
            else:
                continue
            self.result.broken.setdefault(trace.index, what)
            return False
        return True

    def _add_stages(
        self, batch: Batch, free: SparseOutput, chosen: dict[int, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        result, layout, keep = self.result, self.reference.layout, self.reference.path.keep
        theirs = kept_masks(chosen, keep, layout)
        ours = kept_masks({trace.index: trace.perm for trace in free.stages}, keep, layout)
        forced = self._forced(free, chosen, batch.images)
        if LOGITS in outputs and not result.stages_of_twin:
            result.same_selection.add(forced.logits, outputs[LOGITS], batch.names)
        if forced.features is not None and not result.stages_of_twin:
            result.features.add(forced.features, outputs[FEATURES], batch.names)
        for trace in forced.stages:
            stage = result.stages.setdefault(trace.index, StageDifference(trace.index))
            stage.add_selection(ours[trace.index], theirs[trace.index])
            scores = outputs.get(tap_name(trace.index, "scores"))
            stage.add_scores(trace.scores, chosen[trace.index], keep[trace.index], scores, batch.names)
            last = trace is forced.stages[-1] and forced.features is not None
            spatial = theirs[trace.index] if layout.rearranged or last else None
            frozen = _frozen(trace.tokens, keep[trace.index], self.reference, spatial)
            stage.add_tokens(trace.tokens, outputs[tap_name(trace.index, "tokens")], frozen, batch.names)
        self._suspect(batch, forced, chosen, outputs)

    def _forced(self, free: SparseOutput, chosen: dict[int, Tensor], images: Tensor) -> SparseOutput:
        """The reference on the deployed model's selection; the free run itself where both chose alike."""
        if all(torch.equal(trace.perm, chosen[trace.index]) for trace in free.stages):
            return free
        return self.reference.run(images, chosen, free.features is not None)

    def _suspect(
        self, batch: Batch, reference: SparseOutput, chosen: dict[int, Tensor], outputs: dict[str, Tensor]
    ) -> None:
        """Remembers the first batch after which a check of the numbers fails."""
        if self.suspect is None and self.result.failures:
            self.suspect = Suspect(batch.images, reference, chosen, outputs).worst(_SUSPECTS)


def _explain(loop: _Loop, model: ToFe, precision: Precision) -> None:
    """Looks into the batch that differed, if one did."""
    suspect, result = loop.suspect, loop.result
    if suspect is None:
        return
    path = replace(loop.reference.path, features=suspect.reference.features is not None)
    if isinstance(loop.runner, Opened) and not result.stages_hidden:
        limit = max(result.tolerance.tokens_max_abs, result.tolerance.logits_max_abs)
        result.modules = diverging_modules(model, loop.runner, suspect.images, path.forced(suspect.chosen), limit)
    cause = find_cause(model, loop.runner, suspect, result, path, precision)
    if cause is not None:
        result.causes[cause[0]] = cause[1]


def _unlike(free: SparseOutput, outputs: dict[str, Tensor], reference: str) -> str:
    """What makes the outputs impossible to compare with those of the reference, or ""."""
    ours = {LOGITS: free.logits} | ({} if free.features is None else {FEATURES: free.features})
    for name, value in ours.items():
        if name in outputs and outputs[name].shape != value.shape:
            shapes = list(outputs[name].shape), list(value.shape)
            return f"It returns {name} of shape {shapes[0]}, where {reference}'s are {shapes[1]}."
    if not ours.keys() & outputs.keys():
        return f"It returns neither {LOGITS} nor {FEATURES}, so there is nothing to compare."
    return ""


def _frozen(tokens: Tensor, keep: int, reference: Reference, spatial: Tensor | None) -> Tensor:
    """bool [B, L]: which rows of a stage's tokens it froze.

    Args:
        tokens: [B, L, C].
        keep: keep count.
        reference: how they lie.
        spatial: bool [B, N], kept tokens in the order of the rows; None where rows stay in order of rank.
    """
    batch, rows = tokens.shape[:2]
    frozen = torch.zeros(batch, rows, dtype=torch.bool)
    prefix, layout = reference.prefix, reference.layout
    if layout.discarded or rows != prefix + layout.tokens:
        return frozen
    frozen[:, prefix:] = torch.arange(layout.tokens) >= keep if spatial is None else ~spatial
    return frozen


def _is_permutation(perm: Tensor, like: Tensor) -> bool:
    expected = torch.arange(like.shape[1], dtype=perm.dtype).expand_as(like)
    return perm.shape == like.shape and torch.equal(perm.sort(dim=1).values, expected)
