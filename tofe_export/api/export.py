"""From a checkpoint to an ONNX file that was checked, run and compared with PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from tofe_export import __version__
from tofe_export.api.load import Source, load, require_onnx_name
from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.checks import ask_polygraphy, run_two_batches, write_checked
from tofe_export.artifacts.ends import Ends, EndsAgreement, Returned, require_ends
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.artifacts.outputs import Output as OutputFile
from tofe_export.artifacts.outputs import require_outputs
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import images_like_training
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.machine import describe_versions
from tofe_export.documents.manifest import FileIdentity, OnnxManifest, Output
from tofe_export.documents.onnx_options import Input, OnnxOptions
from tofe_export.documents.verification import Agreement
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.files.names import expanded, readable
from tofe_export.graph.export import export_tofe
from tofe_export.graph.functions import OPSET, operators_in
from tofe_export.graph.targets import rewrite_for
from tofe_export.model.backbones import image_shape
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import check_features
from tofe_export.parity.provenance import weights_not_finite
from tofe_export.parity.side_by_side import compare
from tofe_export.progress import Progress, silent, tracked
from tofe_export.runners.base import FEATURES, LOGITS
from tofe_export.tuning.keep_counts import KeepCounts, choose_keep

PARITY_IMAGES = 16
_BATCH = 3
Rearrange = Literal["plugin", "elide"]


@dataclass(frozen=True)
class ExportedArtifact(Artifact):
    """An ONNX file that was just exported.

    Attributes:
        parity: how it agreed with PyTorch on a few images.
        ends: how it prepares images and names classes, if it does.
        images: which images were read and omitted.
        notes: what the user should know about the network, a sentence each.
    """

    manifest: OnnxManifest
    parity: Agreement
    ends: EndsAgreement | None
    images: ImagesRead
    notes: tuple[str, ...]


def export(
    checkpoint: Source,
    path: Path | str = "model.onnx",
    *,
    keep: Sequence[float] | None = None,
    keep_from: str | Path | None = None,
    keep_quantile: float | None = None,
    keep_samples: int | None = None,
    rearrange: Rearrange | None = None,
    input: Input = "tensor",
    outputs: Returned | Sequence[Returned] = ("logits",),
    top: int = 5,
    taps: bool = False,
    inline: bool = False,
    strict: bool = False,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> ExportedArtifact:
    """Exports the fixed path of a network; the file appears only after every check has passed.

    Args:
        checkpoint: from `load`, or its file, or the folder of its training run.
        path: the ONNX file; its manifest is written beside it.
        keep, keep_from, keep_quantile, keep_samples: where keep counts come from, see `choose_keep`; by default they
            are those that the checkpoint learned.
        rearrange: "plugin" puts tokens back in spatial order after each stage, "elide" leaves them in order of rank;
            None takes plugin for logits, and elide with features, which puts them back once, at the end.
        input: what the file takes: "tensor", normalized images float32 [B, D, H, W]; or "image", RGB pixels uint8
            [B, H, W, 3] of any size, which it resizes, crops and normalizes as the checkpoint's preprocessing does.
        outputs: "logits", "features" (patch tokens in spatial order) or both; "classes" in place of "logits" returns
            the most probable classes, int64 [B, top], and their `probabilities`, float32 [B, top].
        top: how many classes.
        taps: per-stage scores, perm and tokens are outputs too.
        inline: write the two operators out in standard operators, for readers that know no model-local functions, as
            `optimize` does for any reader.
        strict: refuse a checkpoint of which something had to be assumed (`Checkpoint.assumed`).
        data: images of the parity check: "digits", "photos" or a folder; None takes what the checkpoint was trained
            on, or bundled photos.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        InputError: see `load`, `choose_keep`, `open_source`, `Ends` and `prepare_function`; a path that must not or
            cannot be written, an assumption under `strict`, or logits of a network without a head.
        CheckFailedError: the exported model does not agree with PyTorch, or a value or a weight is not finite.
        MissingError: the disk is full.
    """
    target = Path(path)
    asked = [outputs] if isinstance(outputs, str) else outputs
    ends = Ends.of(input, asked, top)
    returned = ends.asked_of_network(asked)
    require_onnx_name(target)
    loaded = checkpoint if isinstance(checkpoint, Checkpoint) else load(checkpoint)
    source = _identity(loaded)
    require_outputs([OutputFile(target, Kind.ONNX)], [loaded.path, expanded(str(keep_from)) if keep_from else None])
    _require_usable(loaded, returned, strict)
    log = ImageLog()
    kept = choose_keep(loaded, keep, keep_from, keep_quantile, keep_samples, log, progress)
    images = images_like_training(loaded.data, None if data is None else str(data))
    form = rearrange or ("elide" if FEATURES in returned else "plugin")
    fixed = FixedPath(kept.counts, form == "plugin")
    progress("Tracing the graph", 0, 1)
    graph = export_tofe(loaded.model, kept.counts, fixed.rearranged, taps, returned)
    ends = ends.attached(graph, loaded.preprocessing)
    options = OnnxOptions(
        opset=OPSET, taps=taps, keep_source=kept.source, session=kept.session, input=ends.input, top=ends.top
    )
    if inline:
        options = options.replaced(target="any", passes=rewrite_for(graph, "any"))
    manifest = _manifest(loaded, source, kept, form, returned, options, graph)
    progress("Tracing the graph", 1, 1)
    with atomic_artifact(target) as draft:
        write_checked(graph, draft)
        del graph  # the checks need the memory
        shape = image_shape(loaded.model.vit)
        written = Artifact(draft.path, manifest)
        network = written.network
        ask_polygraphy(network, shape, run_two_batches(network, shape))
        parity = _parity(loaded, written, fixed, images, log, progress)
        agreed = require_ends(written, images, log)
        draft.manifest = manifest
    assert isinstance(draft.manifest, OnnxManifest)
    return ExportedArtifact(target, draft.manifest, parity, agreed, log.document(), _notes(loaded, returned))


def _identity(checkpoint: Checkpoint) -> FileIdentity:
    if checkpoint.path is None:
        raise InputError(
            "The checkpoint is not in a file, so a manifest could not say what was exported.",
            "Save it, and load it from there.",
            code="checkpoint-not-saved",
        )
    return FileIdentity(file=readable(checkpoint.path.name), sha256=checkpoint.file_sha256)


def _require_usable(checkpoint: Checkpoint, outputs: Sequence[Output], strict: bool) -> None:
    if strict and checkpoint.assumed:
        raise InputError(
            f"Something had to be assumed of the checkpoint, which `strict` forbids: {' '.join(checkpoint.assumed)}",
            "Say it yourself, or omit `strict`.",
            code="assumed",
            path=checkpoint.path,
        )
    if broken := weights_not_finite(checkpoint):
        raise CheckFailedError(
            broken, "Use an earlier checkpoint of the run; the training of this one diverged.", code="weights"
        )
    if FEATURES in outputs:
        check_features(checkpoint.model)
    if LOGITS in outputs and not checkpoint.model.vit.num_classes:
        raise InputError(
            "The checkpoint has no classifier (no head.weight), so there are no logits.",
            'Give `outputs="features"`, or train a network with this file as `init`.',
            code="no-head",
            path=checkpoint.path,
        )
    if not outputs or set(outputs) - {LOGITS, FEATURES}:
        raise InputError(
            f"`outputs` are {', '.join(outputs) or 'none'}.",
            'Give "logits" or "classes", "features", or both.',
            code="outputs",
        )


def _parity(
    checkpoint: Checkpoint, written: Artifact, fixed: FixedPath, source: ImageSource, log: ImageLog, progress: Progress
) -> Agreement:
    loop = batches(source, checkpoint.preprocessing, _BATCH, limit=PARITY_IMAGES, log=log)
    steps = -(-min(PARITY_IMAGES, len(source)) // _BATCH)
    loop = tracked(loop, "Comparing with PyTorch", steps, progress)
    comparison = compare(checkpoint.model, OpenedOnnx(written.network), fixed, loop)
    if comparison.failures:
        raise CheckFailedError(
            f"The exported model does not agree with PyTorch, so it was not written: {' '.join(comparison.failures)}",
            "Try other images (`data`); if it stays, please report this model.",
            code="parity",
        )
    return comparison.agreement()


def _notes(checkpoint: Checkpoint, outputs: Sequence[Output]) -> tuple[str, ...]:
    """What the user should know about the network that was exported."""
    stages = checkpoint.model.stages
    if FEATURES in outputs and stages and getattr(stages[-1], "approximator", None) is None:
        note = (
            "Tokens that the last stage freezes keep the features they had before it: this network was trained for "
            "its logits alone. Train with `dense_output` to have them estimated."
        )
        return (*checkpoint.notes, note)
    return checkpoint.notes


def _manifest(
    checkpoint: Checkpoint,
    source: FileIdentity,
    kept: KeepCounts,
    form: Rearrange,
    outputs: Sequence[Output],
    options: OnnxOptions,
    graph: ir.Model,
) -> OnnxManifest:
    model = checkpoint.model
    counts = [float(count) for count in kept.counts]
    return OnnxManifest(
        source=source,
        weights_sha256=checkpoint.weights_sha256,
        config=model.config.document(),
        tokens=model.tokens,
        prefix=model.prefix,
        keep=kept.counts,
        stages=tuple((blocks.start, blocks.stop) for blocks in model.stage_blocks),
        rearrange=form,
        outputs=tuple(outputs),
        recognised=checkpoint.recognised,
        assumed=checkpoint.assumed,
        weights=checkpoint.copy,
        hub=checkpoint.hub,
        precision="fp32",
        gmacs=tofe_macs(model, counts, FEATURES in outputs) / 1e9,
        dense_gmacs=dense_macs(model.vit) / 1e9,
        preprocessing=checkpoint.preprocessing.document(),
        preprocessing_sha256=checkpoint.preprocessing.digest(),
        data=readable(checkpoint.data),
        classes=checkpoint.classes,
        operators=operators_in(graph),
        options=options,
        versions={"tofe_export": __version__, **describe_versions()},
    )
