"""What can be told without running anything: does the artifact, by its manifest, come from this checkpoint?"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.manifest import Manifest
from tofe_export.documents.verification import Check
from tofe_export.errors import InputError
from tofe_export.graph.passes.inline import kept_counts


def check_preprocessing(manifest: Manifest, checkpoint: Checkpoint) -> Check:
    """The images must be prepared for the artifact as for the checkpoint; says which value differs."""
    try:
        theirs = Preprocessing.of(manifest.preprocessing).to_dict()
    except InputError as error:
        return Check.of("preprocessing", [error.message])
    ours = checkpoint.preprocessing
    problems = [
        f"It was exported for images prepared in another way than the checkpoint says: {name} is {theirs[name]}, "
        f"not {value}."
        for name, value in ours.to_dict().items()
        if theirs[name] != value
    ]
    if not problems and manifest.preprocessing_sha256 != ours.digest():
        problems.append("The manifest's preprocessing is not the one its hash was made of: it was changed by hand.")
    return Check.of("preprocessing", problems)


def check_weights(manifest: Manifest, checkpoint: Checkpoint) -> Check:
    """The artifact must come from these weights, whatever file they were in, and they must be numbers."""
    if broken := weights_not_finite(checkpoint):
        return Check.of("weights", [broken])
    if manifest.weights_sha256 is None:
        why = "The manifest, of an older version, does not say from which weights it comes."
        return Check(name="weights", passed=None, message=why)
    if manifest.weights_sha256 == checkpoint.weights_sha256:
        return Check(name="weights", passed=True)
    what = f"It was made of another checkpoint: of {manifest.origin.file}, whose weights are not these."
    return Check.of("weights", [what])


def weights_not_finite(checkpoint: Checkpoint) -> str:
    """A sentence that names the checkpoint's first weight with NaN or an infinity in it, or ""."""
    for name, weight in checkpoint.model.state_dict().items():
        if count := int((~weight.isfinite()).sum()):
            values = "1 value that is" if count == 1 else f"{count} values that are"
            return f"The checkpoint's weight {name} holds {values} not finite."
    return ""


def check_graph(model: ir.Model, keep: Sequence[int], arriving: Sequence[int], prefix: int) -> list[Check]:
    """The graph's own batch dimension and keep counts, against `keep` and `prefix` of its manifest.

    `arriving` are the tokens that each stage finds.
    """
    checks = []
    size = model.graph.inputs[0].shape
    if size is not None and isinstance(size[0], int):
        what = f"The model takes {size[0]} images, no more and no fewer: a batch size is baked in."
        checks.append(Check.of("batch", [what]))
    counts = kept_counts(model, prefix)
    choosing = [stage for stage, count in enumerate(keep) if count != arriving[stage]]
    if len(counts) != len(choosing):
        wrong = [f"{len(counts)} stages of the graph choose tokens; by its manifest it is {len(choosing)}."]
    else:
        wrong = [
            f"Stage {stage} of the graph keeps {count} tokens; its manifest says {keep[stage]}."
            for stage, count in zip(choosing, counts, strict=True)
            if count != keep[stage]
        ]
    return [*checks, Check.of("keep counts", wrong)]
