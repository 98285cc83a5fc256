"""`tofe-export onnx`: checkpoint to a checked, run and compared ONNX file with its manifest."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tofe_export import __version__
from tofe_export.artifacts.commands import quoted
from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.machine import describe_versions
from tofe_export.artifacts.names import readable
from tofe_export.artifacts.sets import atomic_artefact
from tofe_export.checkpoints.checkpoint import Checkpoint, load
from tofe_export.checkpoints.foreign import Hints
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.sources import open_source
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.graph.export import export_tofe
from tofe_export.graph.functions import OPSET, is_operator
from tofe_export.model.backbones import image_shape
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import check_features
from tofe_export.runners.base import FEATURES, LOGITS
from tofe_export.verify.compare import compare
from tofe_export.verify.comparison import Comparison
from tofe_export.verify.opened import OpenedOnnx
from tofe_export.verify.provenance import weights_not_finite
from tofe_export.workflows.checked_onnx import run_two_batches, write_checked
from tofe_export.workflows.keep_counts import KeepOptions, choose_keep
from tofe_export.workflows.progress import Report, silent, tracked

PARITY_IMAGES = 16
_BATCH = 3


@dataclass(frozen=True)
class OnnxOptions:
    """Options of `tofe-export onnx`.

    Attributes:
        keep: where keep counts come from.
        rearrange: put tokens back in spatial order after each stage (`plugin`), else leave them by rank (`elide`);
            None takes plugin for logits, and elide with features, which puts them back once, at the end.
        outputs: logits, features (patch tokens in spatial order) or both.
        taps: per-stage scores, perm and tokens as outputs.
        hints: what a checkpoint of somebody else's does not say, and another image size.
        data: images of the parity check; None takes what the checkpoint was trained on, or bundled photos.
    """

    keep: KeepOptions = field(default_factory=KeepOptions)
    rearrange: bool | None = None
    outputs: tuple[str, ...] = (LOGITS,)
    taps: bool = False
    hints: Hints = field(default_factory=Hints)
    data: str | None = None

    @property
    def puts_back(self) -> bool:
        """Whether tokens are put back after each stage."""
        return FEATURES not in self.outputs if self.rearrange is None else self.rearrange


@dataclass(frozen=True)
class OnnxResult:
    """What was written, and what the checks found."""

    path: Path
    keep: tuple[int, ...]
    manifest: dict[str, Any]
    comparison: Comparison
    images: ImageLog
    notes: list[str]


def export_onnx(source: Path, target: Path, options: OnnxOptions, report: Report = silent) -> OnnxResult:
    """Exports `source` to `target`; the file appears only after every check has passed.

    Args:
        source: the checkpoint.
        target: the ONNX file; its manifest is written beside it.

    Raises:
        InputError: see `load`, `check_keep` and `open_source`.
        CheckFailedError: the exported model does not agree with PyTorch, or a value or a weight is not finite.
        MissingError: the disk is full.
    """
    if target.suffix != ".onnx":
        raise InputError(
            f"{target} does not end in .onnx.", f"Write -o {quoted(target.with_name(f'{target.name}.onnx'))}"
        )
    if options.hints.keep_rate is not None and (options.keep.by_hand or options.keep.source is not None):
        raise InputError("--keep-rate says how many tokens to keep, and so does --keep or --keep-from.", "Give one.")
    checkpoint = load(source, options.hints)
    if broken := weights_not_finite(checkpoint):
        raise CheckFailedError(broken, "Take an earlier checkpoint of the run; this one's training diverged.")
    if FEATURES in options.outputs:
        check_features(checkpoint.model)
    log = ImageLog()
    keep = choose_keep(checkpoint, options.keep, log, report)
    images = parity_source(checkpoint, options.data)
    report("Tracing the graph", 0, 1)
    graph = export_tofe(checkpoint.model, keep, options.puts_back, options.taps, options.outputs)
    manifest = _describe(checkpoint, source, keep, options, graph)
    report("Tracing the graph", 1, 1)
    with atomic_artefact(target) as draft:
        write_checked(graph, draft)
        del graph  # the checks need the memory
        run_two_batches(draft.path, image_shape(checkpoint.model.vit))
        comparison = _parity(checkpoint, draft.path, keep, options, images, log, report)
        draft.manifest = manifest
    return OnnxResult(target, keep, draft.manifest, comparison, log, _notes(checkpoint, options))


def _notes(checkpoint: Checkpoint, options: OnnxOptions) -> list[str]:
    """What the user should know about the network that was exported."""
    notes = list(checkpoint.notes)
    stages = checkpoint.model.stages
    if FEATURES in options.outputs and stages and getattr(stages[-1], "approximator", None) is None:
        notes.append(
            "Tokens that the last stage freezes keep the features that it found: this network was trained for its "
            "logits alone. Train with --features to have them estimated."
        )
    return notes


def parity_source(checkpoint: Checkpoint, data: str | None) -> ImageSource:
    """Images to compare on: what the user named, else the checkpoint's own kind, else bundled photos."""
    if data is not None:
        return open_source(data, "any")
    return open_source("digits" if checkpoint.data == "digits" else "photos", "val")


def _parity(
    checkpoint: Checkpoint,
    path: Path,
    keep: tuple[int, ...],
    options: OnnxOptions,
    source: ImageSource,
    log: ImageLog,
    report: Report,
) -> Comparison:
    loop = batches(source, checkpoint.preprocessing, _BATCH, limit=PARITY_IMAGES, log=log)
    steps = -(-min(PARITY_IMAGES, len(source)) // _BATCH)
    loop = tracked(loop, "Comparing with PyTorch", steps, report)
    found = compare(checkpoint.model, OpenedOnnx(path), keep, options.puts_back, loop)
    if found.failures:
        raise CheckFailedError(
            f"The exported model does not agree with PyTorch, so it was not written: {' '.join(found.failures)}",
            "Try other images with --data; if it stays, please report this model.",
        )
    return found


def _describe(
    checkpoint: Checkpoint, source: Path, keep: tuple[int, ...], options: OnnxOptions, graph: ir.Model
) -> dict[str, Any]:
    model = checkpoint.model
    return {
        "kind": "onnx",
        "source": {"file": readable(source.name), "sha256": sha256(source)},
        "weights_sha256": checkpoint.weights_sha256,
        "config": model.config.to_dict(),
        "tokens": model.tokens,
        "prefix": model.prefix,
        "keep": list(keep),
        "stages": [[blocks.start, blocks.stop] for blocks in model.stage_blocks],
        "rearrange": "plugin" if options.puts_back else "elide",
        "outputs": list(options.outputs),
        "recognised": checkpoint.recognised,
        "precision": "fp32",
        "gmacs": tofe_macs(model, [float(count) for count in keep], FEATURES in options.outputs) / 1e9,
        "dense_gmacs": dense_macs(model.vit) / 1e9,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "preprocessing_sha256": checkpoint.preprocessing.digest(),
        "data": readable(checkpoint.data),
        "classes": list(checkpoint.classes),
        "operators": sorted({f"{node.domain}::{node.op_type}" for node in graph.graph if is_operator(node)}),
        "options": {"opset": OPSET, "taps": options.taps, "keep_source": options.keep.described(checkpoint)},
        "versions": {"tofe_export": __version__, **describe_versions()},
    }
