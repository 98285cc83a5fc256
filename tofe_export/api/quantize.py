"""From a float32 ONNX file to an INT8 or FP8 one, judged beside FP32 and FP16 on this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from tofe_export import __version__
from tofe_export.api.bench import require_timing
from tofe_export.api.load import AnyArtifact, open_onnx, path_of, require_onnx_name
from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.checks import run_two_batches, write_checked
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, beside, require_outputs
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.bounds import MOST_IMAGES, require_within
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.machine import describe_machine, describe_versions, processors
from tofe_export.documents.manifest import FileIdentity, OnnxManifest
from tofe_export.documents.quantization import OmittedPrecision, Quantization
from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.errors import InputError, count
from tofe_export.files.names import readable
from tofe_export.graph.stored import copy_model
from tofe_export.parity.tolerances import Overrides, check_overrides
from tofe_export.precision.calibrated import (
    Calibrated,
    calibrate_model,
    choose_recipe,
    readable_recipe,
    require_float32,
)
from tofe_export.precision.half import WeightTooLargeError
from tofe_export.precision.quantize import FORMATS, QuantizedGraph
from tofe_export.precision.recipe import recipe_file
from tofe_export.progress import Progress, silent
from tofe_export.runners.base import LOGITS
from tofe_export.timing.forms import Form, against_float32, half_of, time_forms
from tofe_export.timing.groups import Settings
from tofe_export.timing.shipping import judge

QuantizedPrecision = Literal["int8", "fp8"]
_CHECKING = "Checking the quantized graph"


@dataclass(frozen=True)
class QuantizedArtifact(Artifact):
    """An ONNX file that was just quantized.

    Attributes:
        quantization: how it agreed with float32, how fast it ran, and which precision to ship.
        notes: what the user should know about its ranges, a sentence each.
    """

    manifest: OnnxManifest
    quantization: Quantization
    notes: tuple[str, ...]


def quantize(
    model: AnyArtifact,
    path: Path | str | None = None,
    *,
    precision: QuantizedPrecision = "int8",
    recipe: CalibrationRecipe | Path | str | None = None,
    data: str | Path | None = None,
    cache: Path | str | None = None,
    samples: int = 128,
    batches: int | Sequence[int] = (1, 8),
    rounds: int = 3,
    processes: int = 5,
    threads: int | None = None,
    tolerances: Overrides | None = None,
    progress: Progress = silent,
) -> QuantizedArtifact:
    """Calibrates and quantizes a model, then compares and times it beside float32 and FP16.

    The file appears only when the checker accepts it and it runs; the verdict says whether it is worth shipping.

    Args:
        model: a float32 ONNX file with its manifest.
        path: the quantized file, beside which its manifest is written; None means `model.int8.onnx` beside `model`.
        precision: "int8" or "fp8".
        recipe: a calibration recipe, its file, or the name of a shipped one; None takes the one named after the
            model's training data.
        data: images instead of the recipe's.
        cache: calibration file to read and write; None takes one in the user's cache folder, if that can be written.
        samples: at most this many held-out images for the comparison with float32.
        batches: batch sizes to time, or one.
        rounds, processes: of the timing, as in `bench`.
        threads: of ONNX Runtime; None means every processor of this process.
        tolerances: limits of your own, as in `verify`.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        InputError: see `calibrate_model` and `quantize_graph`; or a path that must not or cannot be written.
        CheckFailedError: the checker refuses the quantized graph, or it gives NaN.
        MissingError: ONNX Runtime is missing, or the disk is full.
    """
    limits, log = tolerances or {}, ImageLog()
    require_quantized(precision)
    sizes = require_timing(batches, rounds, processes, threads)
    settings = Settings(tuple(sizes), rounds, processes, threads or processors())
    check_overrides(limits, ("fp16", precision))
    target = beside(path_of(model), f".{precision}.onnx") if path is None else Path(path)
    require_onnx_name(target)
    kept_in = None if cache is None else Path(cache)
    source, chosen = checked(model, recipe, data, samples, [Output(target, Kind.ONNX)], kept_in)
    with atomic_artifact(target) as draft:  # first of all, since a place that cannot be written is known at once
        calibrated = calibrate_model(source.graph, source.manifest, chosen, log, kept_in, progress)
        quantized, around = calibrated.quantized(source.graph, precision, engine=False)
        progress(_CHECKING, 0, 1)
        write_checked(quantized.model, draft)
        run_two_batches(draft.path, source.manifest.image_shape)
        progress(_CHECKING, 1, 1)
        draft.manifest = _manifest(source, calibrated, precision, around, quantized)
        halves, omitted = half_beside(source.graph)
        forms = [*halves, Form(precision, draft.path)]
        agreement = against_float32(source, forms, chosen.data.source, samples, limits, log, progress)
        backend, speeds = time_forms(source, forms, settings, progress)
    assert isinstance(draft.manifest, OnnxManifest)
    quantization = Quantization(
        model=readable(target.name),
        precision=precision,
        around=around,
        recipe=readable_recipe(chosen),
        layers=quantized.layers,
        coarse=quantized.coarse,
        data=readable(chosen.data.source),
        images=log.document(),
        agreement=tuple(agreement),
        left_out=tuple(omitted),
        backend=backend,
        speed=tuple(speeds),
        verdict=judge(precision, agreement, speeds),
        passed=agreement[-1].passed,
        machine=describe_machine(),
        versions=describe_versions(),
        settings=settings.document(),
    )
    return QuantizedArtifact(target, draft.manifest, quantization, coarse_notes(quantized.coarse, precision))


def require_quantized(precision: str) -> None:
    """Raises InputError unless `precision` has 8 bits."""
    if precision not in FORMATS:
        raise InputError(
            f"`precision` {precision!r} is not a quantized one.",
            f"Use one of {', '.join(FORMATS)}.",
            code="unknown-value",
            name="precision",
            value=precision,
        )


def checked(
    model: AnyArtifact,
    recipe: CalibrationRecipe | Path | str | None,
    data: str | Path | None,
    samples: int,
    outputs: Sequence[Output],
    cache: Path | None,
) -> tuple[Artifact, CalibrationRecipe]:
    """A float32 ONNX file with logits, and the recipe to calibrate it by: what `quantize` and `sensitivity` start from.

    Raises:
        InputError: an argument of either that cannot be used, as far as that is known before the calibration.
    """
    require_within("samples", samples, 1, MOST_IMAGES)
    require_outputs([*outputs, Output(cache, Kind.CALIBRATION)], [path_of(model), recipe_file(recipe)])
    source = open_onnx(model)
    require_float32(source.graph, source.manifest.precision, str(source.path))
    if LOGITS not in source.manifest.outputs:
        raise InputError(
            f"{source.path} has features but no logits, by which a quantized model is judged.",
            "Export it again with `outputs=('features', 'logits')`.",
            code="no-logits",
            path=source.path,
        )
    return source, choose_recipe(recipe, None if data is None else str(data), source.manifest.data)


def half_beside(model: ir.Model) -> tuple[list[Form], list[OmittedPrecision]]:
    """FP16 for comparison; or, where a weight is too large for it, why it is omitted."""
    try:
        return [half_of(copy_model(model))], []
    except WeightTooLargeError as error:
        return [], [OmittedPrecision(precision="fp16", why=error.message)]


def coarse_notes(coarse: Mapping[str, int], precision: str) -> tuple[str, ...]:
    """A sentence for each layer whose values are too small for scales in FP16; see `QuantizedGraph.coarse`."""
    return tuple(
        f"{layer}: {count(ranges, 'range')} below what scales in FP16 reach, so rounded more coarsely "
        f"than {precision.upper()} could; to spare the layer, name its kind in quantize.high_precision."
        for layer, ranges in coarse.items()
    )


def _manifest(
    source: Artifact, calibrated: Calibrated, precision: QuantizedPrecision, around: str, quantized: QuantizedGraph
) -> OnnxManifest:
    """The float32 file's, and how it was calibrated."""
    manifest = source.manifest
    assert isinstance(manifest, OnnxManifest)
    return manifest.replaced(
        source=FileIdentity(file=readable(source.path.name), sha256=manifest.sha256),
        checkpoint=manifest.origin,
        precision=precision,
        around=around,
        calibration=calibrated.document(),
        layers=quantized.layers,
        coarse=quantized.coarse,
        external_data=None,
        versions={**manifest.versions, "tofe_export": __version__},
    )
