"""Hypotheses about what went wrong, each tried on the images that differ. What none explains stays unexplained."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tofe_export.extremes import scaled
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.outputs import SparseOutput, StageTrace
from tofe_export.model.tofe import ToFe
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.metrics import difference
from tofe_export.parity.tokens import RowErrors, spread
from tofe_export.runners.base import FEATURES, LOGITS, Runner


@dataclass(frozen=True)
class Suspect:
    """Images on which the models differ.

    Attributes:
        images: float32 [B, 3, H, W].
        reference: PyTorch on the deployed model's selection.
        chosen: stage -> perm of the deployed model; empty where it does not show its stages.
        outputs: everything the deployed model returned.
    """

    images: Tensor
    reference: SparseOutput
    chosen: dict[int, Tensor]
    outputs: dict[str, Tensor]

    def worst(self, count: int) -> Suspect:
        """The `count` images whose outputs differ most."""
        logits, features = self.reference.logits, self.reference.features
        name, ours = (LOGITS, logits) if LOGITS in self.outputs or features is None else (FEATURES, features)
        gap = difference(ours, self.outputs[name]).flatten(1).amax(dim=1)
        at = gap.argsort(descending=True, stable=True)[:count]
        traces = [StageTrace(t.index, t.scores[at], t.perm[at], t.tokens[at]) for t in self.reference.stages]
        return Suspect(
            self.images[at],
            SparseOutput(logits[at], traces, None if features is None else features[at]),
            {stage: perm[at] for stage, perm in self.chosen.items()},
            {name: value[at] for name, value in self.outputs.items()},
        )


def find_cause(
    model: ToFe, runner: Runner, suspect: Suspect, result: Comparison, path: FixedPath, precision: str
) -> tuple[int | None, str] | None:
    """The stage (None: before the first) and a sentence of the first hypothesis that fits.

    `path` is as the model was exported, `precision` the deployed model's.
    """
    first = result.modules[0] if result.modules else None
    if first is not None and first.max_abs is None:
        above = "; float16 ends at 65504" if precision == "fp16" else ""
        cause = f"{first.name} overflows{above}: keep it in float32, or use BF16."
        if first.of_reference:
            cause = "Values are not finite in PyTorch itself: look at the checkpoint, not at the export."
        return first.stage, cause
    shown = (trace for trace in suspect.reference.stages if trace.index in result.stages)
    drifting = next((trace for trace in shown if result.drifted(result.stages[trace.index])), None)
    if drifting is not None and (
        found := _moved(drifting, suspect, result) or _approximator(drifting, model, suspect, result, path)
    ):
        return drifting.index, found
    if _reads_bgr(runner, model, suspect, result, path):
        return None, "With the channels in the order blue, green, red it agrees: it reads BGR where PyTorch reads RGB."
    if first is not None and first.name.startswith("vit.patch_embed"):
        return None, "The very first module differs: images reach it prepared otherwise, or its weights are others."
    return None


def _moved(trace: StageTrace, suspect: Suspect, result: Comparison) -> str | None:
    """Whether the right tokens lie in wrong places: rows that equal another row of PyTorch's."""
    limits = result.limits(result.stages[trace.index])
    deployed = suspect.outputs[tap_name(trace.index, "tokens")]
    exceeded = limits.exceeded(RowErrors.of(trace.tokens, deployed))
    for image, (ours, theirs) in enumerate(zip(trace.tokens.double(), deployed.double(), strict=True)):
        wrong = exceeded[image].nonzero().flatten().tolist()
        if not wrong:
            continue
        # Each wrong row of theirs against every row of ours; by products of matrices it would be inexact.
        apart = torch.cdist(theirs[wrong], ours, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = (apart / spread(trace.tokens)[image]).nan_to_num(nan=float("inf")).min(dim=1)
        moved = {
            row: int(source)
            for row, source, gap in zip(wrong, nearest.indices, nearest.values, strict=True)
            if gap <= limits.relative and int(source) != row
        }
        if len(wrong) == 2 and all(moved.get(moved.get(row, -1)) == row for row in wrong):
            return f"Rows {wrong[0]} and {wrong[1]} of its tokens are swapped: a row is put back in the wrong place."
        if moved and 2 * len(moved) >= len(wrong):
            row, source = next(iter(moved.items()))
            return f"Row {row} of its tokens holds what belongs in row {source}: the rearrange uses a wrong index."
    return None


def _approximator(trace: StageTrace, model: ToFe, suspect: Suspect, result: Comparison, path: FixedPath) -> str | None:
    """Whether frozen tokens alone differ, and whether they come back as they were."""
    stage = result.stages[trace.index]
    limits = result.limits(stage)
    if not limits.hold(stage.of_kept) or limits.hold(stage.of_frozen):
        return None
    approximator = getattr(model.stages[trace.index], "approximator", None)
    if isinstance(approximator, nn.Module):
        identity = approximator.register_forward_hook(lambda module, inputs, output: inputs[0])
        with identity, torch.inference_mode():
            changed = model.forward_fixed(suspect.images, path.forced(suspect.chosen))
        without = next(other.tokens for other in changed.stages if other.index == trace.index)
        deployed = suspect.outputs[tap_name(trace.index, "tokens")]
        if not limits.exceeded(RowErrors.of(without, deployed)).any():
            return "Its frozen tokens come back as they were: the approximator was omitted."
    return "Only frozen tokens differ: the approximator computes something else."


def _reads_bgr(runner: Runner, model: ToFe, suspect: Suspect, result: Comparison, path: FixedPath) -> bool:
    """Whether the deployed model says of images with red and blue exchanged what PyTorch says of them as they are."""
    if LOGITS not in suspect.outputs:
        return False
    flipped = torch.from_numpy(runner.run(suspect.images.flip(1).contiguous().numpy())[LOGITS])
    with torch.inference_mode():
        reference = model.forward_fixed(suspect.images, path).logits
    allowed = scaled(result.tolerance.logits_max_abs, float(reference.abs().max()))
    agrees = [float(difference(reference, logits).max()) <= allowed for logits in (suspect.outputs[LOGITS], flipped)]
    return agrees == [False, True]  # of gray images, or where the logits agree anyway, it explains nothing
