"""Compares a deployed model with its checkpoint, stage by stage, on real images.

Two kinds of difference are kept apart. Selection drift: the deployed model chose other tokens. Numerical drift:
with PyTorch forced onto the deployed model's selection, the numbers differ. Another choice is only right where
PyTorch's own scores tie within the tolerance: the score gap says by how much a kept token falls short of a frozen one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tofe_export.artifacts.opened import Opened
from tofe_export.data.images import Batch
from tofe_export.documents.fields import Precision
from tofe_export.errors import TofeError
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import SparseOutput
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
    loop = _Loop.of(TorchReference(model, path), deployed, tolerance or TOLERANCES[precision])
    _run([loop], batches, labelled)
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

    `forms` and `tolerances` are by precision; the other arguments are as in `compare`.
    """
    loops = [_Loop.of(reference, runner, tolerances[precision]) for precision, runner in forms.items()]
    _run(loops, batches, labelled)
    return [loop.result for loop in loops]


@dataclass
class _Loop:
    """A comparison under way, and the first batch on which something differed."""

    reference: Reference
    runner: Runner
    result: Comparison
    suspect: Suspect | None = None

    @classmethod
    def of(cls, reference: Reference, runner: Runner, tolerance: Tolerance) -> _Loop:
        """Before the first batch."""
        twin = isinstance(runner, Opened) and runner.stages_of_twin
        result = Comparison(tolerance, reference.score_scale, stages_of_twin=twin, reference=reference.name)
        return cls(reference, runner, result)

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
            result.logits.add(free.logits, outputs[LOGITS], batch.names, batch.labels)
        hidden = any(tap_name(trace.index, tap) not in outputs for trace in free.stages for tap in ("perm", "tokens"))
        if (hidden or result.stages_of_twin) and free.features is not None:
            result.own_features.add(free.features, outputs[FEATURES], batch.names)
        if hidden:
            result.stages_hidden, chosen, forced = True, {}, free
        else:
            chosen = {trace.index: outputs[tap_name(trace.index, "perm")] for trace in free.stages}
            if not self._comparable(free, chosen, outputs):
                return
            forced = self._add_stages(batch, free, chosen, outputs)
        if self.suspect is None and result.failures:  # the first batch after which a check of the numbers fails
            self.suspect = Suspect(batch.images, forced, chosen, outputs).worst(_SUSPECTS)

    def _comparable(self, free: SparseOutput, chosen: dict[int, Tensor], outputs: dict[str, Tensor]) -> bool:
        """Whether permutations are permutations, and tokens as many as the reference's."""
        for trace in free.stages:
            perm, theirs = chosen[trace.index], outputs[tap_name(trace.index, "tokens")].shape
            ours = trace.perm
            if perm.shape != ours.shape or (perm.sort(dim=1).values != ours.sort(dim=1).values).any():
                what = f"Stage {trace.index}: perm is not a permutation of its tokens; the partition is wrong."
            elif theirs != trace.tokens.shape:
                what = (
                    f"Stage {trace.index} hands on tokens of shape {list(theirs)}, where keep counts "
                    f"{', '.join(map(str, self.reference.path.keep))} give {list(trace.tokens.shape)}."
                )
            else:
                continue
            self.result.broken.setdefault(trace.index, what)
            return False
        return True

    def _add_stages(
        self, batch: Batch, free: SparseOutput, chosen: dict[int, Tensor], outputs: dict[str, Tensor]
    ) -> SparseOutput:
        """Returns what the reference computes on the deployed model's selection."""
        result, layout, keep = self.result, self.reference.layout, self.reference.path.keep
        theirs = kept_masks(chosen, keep, layout)
        ours = kept_masks({trace.index: trace.perm for trace in free.stages}, keep, layout)
        forced = free  # where both chose alike
        if not all(torch.equal(trace.perm, chosen[trace.index]) for trace in free.stages):
            forced = self.reference.run(batch.images, chosen, free.features is not None)
        if LOGITS in outputs and not result.stages_of_twin:
            result.same_selection.add(forced.logits, outputs[LOGITS], batch.names)
        if forced.features is not None and not result.stages_of_twin:
            result.features.add(forced.features, outputs[FEATURES], batch.names)
        for trace in forced.stages:
            index = trace.index
            stage = result.stages.setdefault(index, StageDifference(index))
            stage.add_selection(ours[index], theirs[index])
            scores = outputs.get(tap_name(index, "scores"))
            stage.add_scores(trace.scores, chosen[index], keep[index], scores, batch.names)
            last = trace is forced.stages[-1] and forced.features is not None
            spatial = theirs[index] if layout.rearranged or last else None
            frozen = _frozen(trace.tokens, keep[index], self.reference, spatial)
            stage.add_tokens(trace.tokens, outputs[tap_name(index, "tokens")], frozen, batch.names)
        return forced


def _run(loops: Sequence[_Loop], batches: Iterable[Batch], labelled: bool) -> None:
    for batch in batches:
        for loop in loops:
            with torch.inference_mode():
                loop.add(batch if labelled else replace(batch, labels=None))


def _explain(loop: _Loop, model: ToFe, precision: Precision) -> None:
    """Looks into the batch that differed, if one did."""
    suspect, result = loop.suspect, loop.result
    if suspect is None:
        return
    path = replace(loop.reference.path, features=suspect.reference.features is not None)
    if isinstance(loop.runner, Opened) and not result.stages_hidden:
        limit = max(result.tolerance.tokens_max_abs, result.tolerance.logits_max_abs)
        result.modules = diverging_modules(model, loop.runner, suspect.images, path.forced(suspect.chosen), limit)
    if cause := find_cause(model, loop.runner, suspect, result, path, precision):
        result.causes[cause[0]] = cause[1]


def _unlike(free: SparseOutput, outputs: dict[str, Tensor], reference: str) -> str:
    """What makes the outputs impossible to compare with those of the reference, or ""."""
    ours = {LOGITS: free.logits} | ({} if free.features is None else {FEATURES: free.features})
    for name, value in ours.items():
        if name in outputs and outputs[name].shape != value.shape:
            shape = list(outputs[name].shape)
            return f"It returns {name} of shape {shape}, where {reference}'s are {list(value.shape)}."
    if not ours.keys() & outputs.keys():
        return f"It returns neither {LOGITS} nor {FEATURES}, so there is nothing to compare."
    return ""


def _frozen(tokens: Tensor, keep: int, reference: Reference, spatial: Tensor | None) -> Tensor:
    """bool [B, L]: which rows of a stage's tokens [B, L, C] it froze.

    `spatial` says bool [B, N] which tokens are kept, in the order of the rows; None where rows stay in order of rank.
    """
    frozen = torch.zeros(tokens.shape[:2], dtype=torch.bool)
    prefix, layout = reference.prefix, reference.layout
    if not layout.discarded and tokens.shape[1] == prefix + layout.tokens:
        frozen[:, prefix:] = torch.arange(layout.tokens) >= keep if spatial is None else ~spatial
    return frozen
