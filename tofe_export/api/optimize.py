"""From an ONNX file to the same network in the form that a runtime runs best."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from tofe_export import __version__
from tofe_export.api.load import AnyArtifact, open_onnx, path_of, require_onnx_name
from tofe_export.artifacts.artifact import Artifact, require_logits
from tofe_export.artifacts.checks import run_two_batches, write_checked
from tofe_export.artifacts.deployed import open_with_stages
from tofe_export.artifacts.ends import Ends, EndsAgreement, require_ends
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, beside, require_outputs
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import images_like_training
from tofe_export.documents.fields import Target
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.machine import describe_versions
from tofe_export.documents.manifest import FileIdentity, OnnxManifest, target_name
from tofe_export.documents.onnx_options import Input
from tofe_export.documents.verification import Agreement
from tofe_export.errors import CheckFailedError, InputError, brief
from tofe_export.files.names import readable
from tofe_export.graph.functions import operators_in
from tofe_export.graph.stored import copy_model, fits
from tofe_export.graph.targets import require_target, rewrite_for
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.reference import OnnxReference
from tofe_export.parity.side_by_side import compare_forms
from tofe_export.precision.calibrated import require_float32
from tofe_export.precision.weights import WEIGHTS_PASS, weights_in_8_bits
from tofe_export.progress import Progress, silent, tracked
from tofe_export.runners.onnxruntime_runner import CPU
from tofe_export.runners.openvino_runner import Arithmetic, require_arithmetic

_IMAGES = 64
_BATCH = 4


@dataclass(frozen=True)
class OptimizedArtifact(Artifact):
    """An ONNX file that was just rewritten for a runtime.

    Attributes:
        agreement: how it agreed with the file it was made of, on a few images.
        ends: how it prepares images and names classes, if it does.
        images: which images were read and omitted.
    """

    manifest: OnnxManifest
    agreement: Agreement
    ends: EndsAgreement | None
    images: ImagesRead


def optimize(
    model: AnyArtifact,
    path: Path | str | None = None,
    *,
    target: Target | Literal["tensorrt"],
    precision: Arithmetic = "fp32",
    weights: Literal["fp32", "int8"] = "fp32",
    input: Input = "tensor",
    classes: int | None = None,
    data: str | Path | None = None,
    progress: Progress = silent,
) -> OptimizedArtifact:
    """Rewrites a model for a runtime, and compares it there with the file it was made of.

    The file appears only after every check has passed. It is the last step: quantize before.

    Args:
        model: an ONNX file with its manifest, in any precision.
        path: the file to write, beside which its manifest is written; None means `model.onnxruntime.onnx` and so on
            beside `model`.
        target: "onnxruntime", "openvino", or "any": standard operators alone, for readers that know no model-local
            functions.
        precision: what OpenVINO computes float32 values in, "fp32" or "bf16".
        weights: "int8" stores the weights of ONNX Runtime's matrix products in 8 bits, selectors excepted. It may
            pay at batch 1, where weights stream from memory, on processors with 8-bit instructions; measure it.
        input: "image" lets the file take pixels, see `export`.
        classes: how many of the most probable ones to return in place of logits, see `export`; None leaves logits.
        data: images of the comparison: "digits", "photos" or a folder; None takes what the checkpoint was trained on,
            or bundled photos.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        InputError: see `open_onnx`, `open_source`, `Ends` and `prepare_function`; a target that needs no other file,
            BF16 for another runtime than OpenVINO, or a path that must not or cannot be written.
        CheckFailedError: the rewritten model does not agree with its source.
        MissingError: OpenVINO is missing, this processor does not compute in BF16, or the disk is full.
    """
    form = _known(target, precision, weights, path_of(model))
    ends = Ends.of(input, ["logits" if classes is None else "classes"], 1 if classes is None else classes)
    written = beside(path_of(model), f".{form}.onnx") if path is None else Path(path)
    require_onnx_name(written)
    require_outputs([Output(written, Kind.ONNX)], [path_of(model)])
    source, log = open_onnx(model), ImageLog()
    manifest = source.manifest
    assert isinstance(manifest, OnnxManifest)
    preprocessing = Preprocessing.of(manifest.preprocessing)
    images = images_like_training(manifest.data, None if data is None else str(data))
    if ends.top:
        require_logits(manifest)
    graph = copy_model(source.graph)
    if form == "openvino":
        _require_openvino(source, precision, graph)
    if weights == "int8":
        require_float32(graph, manifest.precision, str(source.path))
    with atomic_artifact(written) as draft:
        ends = ends.attached(graph, preprocessing)
        passes = rewrite_for(graph, form)
        if weights == "int8":
            graph, passes[WEIGHTS_PASS] = weights_in_8_bits(graph)
        described = _manifest(source, manifest, form, precision, ends, passes, graph)
        write_checked(graph, draft)
        rewritten = Artifact(draft.path, described)
        run_two_batches(rewritten.network, manifest.image_shape)
        runner = open_with_stages(rewritten, CPU)
        loop = batches(images, preprocessing, _BATCH, limit=_IMAGES, log=log)
        loop = tracked(loop, "Comparing with the source", -(-min(_IMAGES, len(images)) // _BATCH), progress)
        [comparison] = compare_forms(OnnxReference(source), {described.precision: runner}, loop, labelled=False)
        _require_agreement(comparison, written, form)
        agreed = require_ends(rewritten, images, log)
        draft.manifest = described
    assert isinstance(draft.manifest, OnnxManifest)
    return OptimizedArtifact(written, draft.manifest, comparison.agreement(), agreed, log.document())


def _known(target: str, precision: str, weights: str, source: Path) -> Target:
    if target == "tensorrt":
        raise InputError(
            "TensorRT runs the file that was exported best as it is: its two operators become plugins.",
            "Build an engine from it.",
            code="tensorrt-needs-no-other-file",
            path=source,
        )
    known = require_target(target)
    if precision not in ("fp32", "bf16"):
        raise InputError(f"`precision` is {brief(precision)}.", "Give fp32 or bf16.", code="unknown-value")
    if weights not in ("fp32", "int8"):
        raise InputError(f"`weights` is {brief(weights)}.", "Give fp32 or int8.", code="unknown-value")
    if precision == "bf16" and target != "openvino":
        raise InputError(
            "Only OpenVINO computes a float32 file in BF16 on a processor.",
            "Omit it, or give `target='openvino'`.",
            code="only-openvino-bf16",
        )
    if weights == "int8" and target != "onnxruntime":
        raise InputError(
            "Weights in 8 bits among float32 values are for ONNX Runtime.",
            "Omit `weights`, or give `target='onnxruntime'`.",
            code="weights-for-onnxruntime",
        )
    return known


def _require_openvino(source: Artifact, precision: Arithmetic, graph: ir.Model) -> None:
    require_arithmetic(precision)
    if source.manifest.precision not in ("fp32", "int8"):
        raise InputError(
            f"{source.path} is in {source.manifest.precision.upper()}; OpenVINO gets float32 or INT8 files here.",
            "Start from the float32 file, and choose BF16 when you optimize it.",
            code="openvino-precision",
            path=source.path,
        )
    if not fits(graph):
        raise InputError(
            f"{source.path} is above 2 GB, which this program does not hand to OpenVINO.",
            "Take a smaller backbone for OpenVINO.",
            code="openvino-too-large",
            path=source.path,
        )


def _require_agreement(comparison: Comparison, path: Path, target: Target) -> None:
    if comparison.failures:
        raise CheckFailedError(
            f"In {target_name(target)} the optimized model does not agree with its source, so {path} was not "
            f"written: {' '.join(comparison.failures)}",
            "Try other images (`data`); if it stays, please report this model.",
            code="parity",
        )


def _manifest(
    source: Artifact,
    manifest: OnnxManifest,
    target: Target,
    precision: Arithmetic,
    ends: Ends,
    passes: Mapping[str, int],
    graph: ir.Model,
) -> OnnxManifest:
    changed: dict[str, str] = {}
    if WEIGHTS_PASS in passes:
        changed = {"precision": "int8", "around": "fp32"}
    elif precision == "bf16":
        changed = {"precision": "bf16"} if manifest.precision == "fp32" else {"around": "bf16"}
    return manifest.replaced(
        **changed,
        source=FileIdentity(file=readable(source.path.name), sha256=manifest.sha256),
        checkpoint=manifest.origin,
        operators=operators_in(graph),
        options=manifest.options.replaced(
            target=target, passes=dict(passes), arithmetic=precision, input=ends.input, top=ends.top
        ),
        external_data=None,
        versions={**manifest.versions, **describe_versions(), "tofe_export": __version__},
    )
