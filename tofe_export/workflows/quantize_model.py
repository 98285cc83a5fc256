"""`tofe-export quantize`: a float32 ONNX file to an INT8 or FP8 one, judged beside FP32 and FP16 on this machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tofe_export import __version__
from tofe_export.artifacts.commands import quoted
from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.machine import describe_machine, describe_versions, processors
from tofe_export.artifacts.manifest import read_manifest
from tofe_export.artifacts.names import readable
from tofe_export.artifacts.places import resolved
from tofe_export.artifacts.sets import atomic_artefact
from tofe_export.data.image_log import ImageLog
from tofe_export.errors import InputError, count
from tofe_export.precision.half import WeightTooLargeError
from tofe_export.precision.quantize import FORMATS
from tofe_export.runners.base import LOGITS
from tofe_export.verify.opened import read_onnx
from tofe_export.verify.tolerances import Overrides, require_used
from tofe_export.workflows.calibrate_model import Calibrated, CalibrationOptions, calibrate_model, first_step
from tofe_export.workflows.checked_onnx import run_two_batches, write_checked
from tofe_export.workflows.precision_forms import Form, Timing, against_float32, half_of, image_shape, time_forms
from tofe_export.workflows.progress import Report, silent
from tofe_export.workflows.verdict import judge

SCHEMA = "tofe-export/quantize/1"


@dataclass(frozen=True)
class QuantizeOptions:
    """Options of `tofe-export quantize`.

    Attributes:
        precision: "int8" or "fp8".
        calibration: how ranges are found.
        samples: at most so many held-out images for the comparison with float32.
        timing: how precisions are timed.
        tolerances: the user's own limits.
    """

    precision: str = "int8"
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    samples: int = 128
    timing: Timing = field(default_factory=Timing)
    tolerances: Overrides = field(default_factory=dict)


@dataclass(frozen=True)
class QuantizeResult:
    """What was written, quantize.json, which images were read and left out, and what to know of the ranges."""

    path: Path
    document: dict[str, Any]
    images: ImageLog
    notes: list[str]


def quantize_model(source: Path, target: Path, options: QuantizeOptions, report: Report = silent) -> QuantizeResult:
    """Calibrates and quantizes `source`, then compares and times it beside float32 and FP16.

    The file appears only when the checker takes it and it runs; whether it is worth shipping is the verdict's matter.

    Args:
        source: a float32 ONNX file with its manifest.
        target: the quantized file; its manifest is written beside it.
        options: see there.
        report: progress.

    Raises:
        InputError: see `calibrate_model` and `quantize`, or a name that does not fit.
        CheckFailedError: the checker refuses the quantized graph, or it gives NaN.
        MissingError: ONNX Runtime is missing, or the disk is full.
    """
    if target.suffix != ".onnx":
        raise InputError(
            f"{target} does not end in .onnx.", f"Write -o {quoted(target.with_name(f'{target.name}.onnx'))}"
        )
    if options.precision not in FORMATS:
        raise InputError(f"There is no quantized format {options.precision!r}.", f"Known: {', '.join(FORMATS)}.")
    if resolved(target) == resolved(source):
        raise InputError(f"The quantized model would replace {source}.", "Name another file with -o.")
    require_used(options.tolerances, ("fp16", options.precision))
    manifest = quantizable_manifest(source)
    model = read_onnx(source)
    with atomic_artefact(target) as draft:  # first of all, since a place that cannot be written is known at once
        calibrated = calibrate_model(source, model, manifest, options.calibration, report)
        made, around = calibrated.quantize(model, options.precision, engine=False)
        report("Checking the quantized graph", 0, 1)
        write_checked(made.model, draft)
        run_two_batches(draft.path, image_shape(manifest))
        report("Checking the quantized graph", 1, 1)
        layers = {"quantized": made.layers, "high_precision": made.kept}
        draft.manifest = describe(manifest, source, calibrated, options.precision, around)
        draft.manifest |= {"layers": layers, "coarse": made.coarse}
        halves, left_out = half_beside(source)
        forms = [*halves, Form(options.precision, draft.path)]
        data = calibrated.recipe.data.source
        found = against_float32(
            source, forms, manifest, data, options.samples, options.tolerances, report, calibrated.images
        )
        backend, speeds = time_forms(source, forms, manifest, options.timing, report)
    verdict = judge(options.precision, found, speeds)
    mine = next(comparison for comparison in found if comparison.precision == options.precision)
    document = {
        "schema": SCHEMA,
        "model": readable(target.name),
        "precision": options.precision,
        "around": around,
        "recipe": calibrated.recipe.to_dict(),
        "layers": layers,
        "coarse": made.coarse,
        "data": readable(data),
        "images": calibrated.images.to_dict(),
        "agreement": [{"precision": comparison.precision, **comparison.to_dict()} for comparison in found],
        "left_out": left_out,
        "backend": backend,
        "speed": [speed.to_dict() for speed in speeds],
        "verdict": verdict.to_dict(),
        "passed": mine.passed,
        "machine": describe_machine(),
        "versions": describe_versions(),
        "settings": {"threads": options.timing.threads or processors(), "rounds": options.timing.rounds},
    }
    return QuantizeResult(target, document, calibrated.images, coarse_notes(made.coarse, options.precision))


def quantizable_manifest(source: Path) -> dict[str, Any]:
    """The manifest of an ONNX file that can be quantized and judged.

    Raises:
        InputError: no ONNX file, or one without logits; and see `read_manifest`.
    """
    if source.suffix != ".onnx":
        raise InputError(f"{source} is no ONNX file.", first_step(source))
    manifest = read_manifest(source)
    if LOGITS not in manifest.get("outputs", [LOGITS]):
        raise InputError(
            f"{source} has features but no logits, by which a quantized model is judged.",
            "Export it again: tofe-export onnx CKPT --output features,logits",
        )
    return manifest


def half_beside(source: Path) -> tuple[list[Form], list[dict[str, str]]]:
    """FP16 for comparison; or, where a weight is too large for it, why it is left out."""
    try:
        return [half_of(read_onnx(source))], []
    except WeightTooLargeError as error:
        return [], [{"precision": "fp16", "why": error.message}]


def coarse_notes(coarse: Mapping[str, int], precision: str) -> list[str]:
    """What the user should know of layers whose values are too small for scales in FP16; see `Quantized.coarse`."""
    return [
        f"{layer}: {count(ranges, 'range')} below what scales in FP16 reach, so rounded more coarsely "
        f"than {precision.upper()} could; to spare the layer, name its kind in quantize.high_precision."
        for layer, ranges in coarse.items()
    ]


def describe(
    source: Mapping[str, Any], path: Path, calibrated: Calibrated, precision: str, around: str
) -> dict[str, Any]:
    """The manifest of a quantized file: the float32 one's, and how it was calibrated."""
    changed = {
        "source": {"file": readable(path.name), "sha256": sha256(path)},
        "checkpoint": source["source"],
        "precision": precision,
        "around": around,
        "calibration": calibrated.to_dict(),
        "versions": {**source["versions"], "tofe_export": __version__},
    }
    dropped = ("schema", "sha256")
    return {name: value for name, value in source.items() if name not in dropped} | changed
