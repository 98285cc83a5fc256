"""`tofe-export onnx`: checkpoint to a checked, run and compared ONNX file with its manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from tofe_export import __version__
from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.machine import describe_versions
from tofe_export.artifacts.manifest import atomic_artefact
from tofe_export.data.images import CorruptLog, ImageSource, batches
from tofe_export.data.sources import open_source
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.graph.export import export_tofe
from tofe_export.graph.functions import OPSET, is_operator
from tofe_export.model.backbones import image_shape
from tofe_export.model.checkpoint import Checkpoint, load
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import check_keep
from tofe_export.runners.base import LOGITS
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.verify.compare import Comparison, compare
from tofe_export.verify.opened import OpenedOnnx
from tofe_export.workflows.progress import Report, silent, tracked

PARITY_IMAGES = 16
_BATCHES = (1, 3)  # neither is the batch that was traced
_LIMIT_BYTES = 2_000_000_000  # a protobuf file cannot be larger


@dataclass(frozen=True)
class OnnxOptions:
    """Options of `tofe-export onnx`.

    Attributes:
        keep: keep counts by hand; None takes `keep_from`, or the learned ratios.
        keep_from: images whose threshold-path counts give the keep counts.
        keep_quantile: which quantile of those counts, 0..1.
        keep_samples: at most so many of those images.
        rearrange: put tokens back in spatial order (`plugin`), else leave them by rank (`elide`).
        taps: per-stage scores, perm and tokens as outputs.
        data: images of the parity check; None takes what the checkpoint was trained on, or bundled photos.
    """

    keep: tuple[int, ...] | None = None
    keep_from: str | None = None
    keep_quantile: float = 0.5
    keep_samples: int = 1000
    rearrange: bool = True
    taps: bool = False
    data: str | None = None


@dataclass(frozen=True)
class OnnxResult:
    """What was written, and what the checks found."""

    path: Path
    keep: tuple[int, ...]
    manifest: dict[str, Any]
    comparison: Comparison
    skipped: list[str]


def export_onnx(source: Path, target: Path, options: OnnxOptions, report: Report = silent) -> OnnxResult:
    """Exports `source` to `target`; the file appears only after every check has passed.

    Args:
        source: the checkpoint.
        target: the ONNX file; its manifest is written beside it.

    Raises:
        InputError: see `load`, `check_keep` and `open_source`.
        CheckFailedError: the exported model does not agree with PyTorch.
        MissingError: the disk is full.
    """
    if target.suffix != ".onnx":
        raise InputError(f"{target} does not end in .onnx.", f"Write -o {target.name}.onnx")
    checkpoint = load(source)
    corrupt = CorruptLog()
    keep = choose_keep(checkpoint, options, corrupt, report)
    images = parity_source(checkpoint, options.data)
    report("Tracing the graph", 0, 1)
    graph = export_tofe(checkpoint.model, keep, options.rearrange, options.taps)
    manifest = _describe(checkpoint, source, keep, options, graph)
    proto = ir.to_proto(graph)
    report("Tracing the graph", 1, 1)
    with atomic_artefact(target) as draft:
        _write_checked(proto, draft.path)
        _run_two_batches(draft.path, checkpoint)
        comparison = _parity(checkpoint, draft.path, keep, options, images, corrupt, report)
        draft.manifest = manifest
    return OnnxResult(target, keep, manifest, comparison, corrupt.lines())


def choose_keep(checkpoint: Checkpoint, options: OnnxOptions, corrupt: CorruptLog, report: Report) -> tuple[int, ...]:
    """Keep counts by hand, from data, or learned; see `OnnxOptions`.

    Raises:
        InputError: both ways at once, or counts that do not fit.
    """
    if not 0 <= options.keep_quantile <= 1:
        raise InputError(
            f"--keep-quantile {options.keep_quantile} is not between 0 and 1.", "0.5 takes the median image."
        )
    if options.keep is not None and options.keep_from is not None:
        raise InputError("--keep and --keep-from were both given.", "Give one of them.")
    if options.keep is not None:
        return check_keep(options.keep, checkpoint.model)
    if options.keep_from is None:
        return check_keep(checkpoint.keep_counts(), checkpoint.model)
    source = open_source(options.keep_from, "any")
    total = min(len(source), options.keep_samples)
    counts: list[list[int]] = []
    loop = batches(source, checkpoint.preprocessing, 1, limit=options.keep_samples, on_corrupt=corrupt)
    for batch in tracked(loop, "Counting kept tokens", total, report):
        (single,) = checkpoint.model.forward_threshold(batch.images)
        counts.append([int((trace.scores > 0).sum()) for trace in single.stages])
    return check_keep(quantile_counts(counts, options.keep_quantile), checkpoint.model)


def quantile_counts(counts: Sequence[Sequence[int]], quantile: float) -> tuple[int, ...]:
    """Per stage the quantile of the images' kept counts, rounded up, at least 1."""
    found = np.quantile(np.asarray(counts, dtype=np.float64), quantile, axis=0, method="linear")
    return tuple(max(1, int(np.ceil(value))) for value in found)


def parity_source(checkpoint: Checkpoint, data: str | None) -> ImageSource:
    """Images to compare on: what the user named, else the checkpoint's own kind, else bundled photos."""
    if data is not None:
        return open_source(data, "any")
    return open_source("digits" if checkpoint.data == "digits" else "photos", "val")


def _write_checked(proto: onnx.ModelProto, path: Path) -> None:
    if proto.ByteSize() > _LIMIT_BYTES:
        raise InputError(
            "The model is larger than 2 GB, more than one ONNX file can hold.", "Choose a smaller backbone."
        )
    path.write_bytes(proto.SerializeToString(deterministic=True))
    try:
        onnx.checker.check_model(os.fspath(path), full_check=True)
    except onnx.checker.ValidationError as error:
        raise CheckFailedError(
            f"The ONNX checker refuses the exported graph: {error}", "Please report this model."
        ) from error


def _run_two_batches(path: Path, checkpoint: Checkpoint) -> None:
    """A batch size baked in by accident shows only at another one."""
    runner = OnnxRuntimeRunner(path)
    shape = image_shape(checkpoint.model.vit)
    for batch in _BATCHES:
        images = np.random.default_rng(batch).standard_normal((batch, *shape), dtype=np.float32)
        logits = runner.run(images)[LOGITS]
        if logits.shape[0] != batch or not np.isfinite(logits).all():
            raise CheckFailedError(
                f"At batch {batch} the exported model returns logits of shape {list(logits.shape)}, "
                "or values that are not finite.",
                "Check the checkpoint's weights for NaN; otherwise please report this model.",
            )


def _parity(
    checkpoint: Checkpoint,
    path: Path,
    keep: tuple[int, ...],
    options: OnnxOptions,
    source: ImageSource,
    corrupt: CorruptLog,
    report: Report,
) -> Comparison:
    loop = batches(source, checkpoint.preprocessing, _BATCHES[1], limit=PARITY_IMAGES, on_corrupt=corrupt)
    steps = -(-min(PARITY_IMAGES, len(source)) // _BATCHES[1])
    loop = tracked(loop, "Comparing with PyTorch", steps, report)
    found = compare(checkpoint.model, OpenedOnnx(path), keep, options.rearrange, loop)
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
        "source": {"file": source.name, "sha256": sha256(source)},
        "config": model.config.to_dict(),
        "tokens": model.tokens,
        "prefix": model.prefix,
        "keep": list(keep),
        "stages": [[blocks.start, blocks.stop] for blocks in model.stage_blocks],
        "rearrange": "plugin" if options.rearrange else "elide",
        "precision": "fp32",
        "gmacs": tofe_macs(model, [float(count) for count in keep]) / 1e9,
        "dense_gmacs": dense_macs(model.vit) / 1e9,
        "preprocessing": checkpoint.preprocessing.to_dict(),
        "preprocessing_sha256": checkpoint.preprocessing.digest(),
        "data": checkpoint.data,
        "operators": sorted({f"{node.domain}::{node.op_type}" for node in graph.graph if is_operator(node)}),
        "options": {"opset": OPSET, "taps": options.taps, "keep_source": _keep_source(options)},
        "versions": {"tofe_export": __version__, **describe_versions()},
    }


def _keep_source(options: OnnxOptions) -> str:
    if options.keep is not None:
        return "given"
    return f"{options.keep_from} quantile {options.keep_quantile}" if options.keep_from else "learned"
