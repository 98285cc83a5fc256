"""`tofe-export trt`: an exported ONNX file to an engine with its manifest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch

from tofe_export import __version__
from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.manifest import read_manifest
from tofe_export.artifacts.names import readable
from tofe_export.artifacts.sets import atomic_artefact
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import Batch, batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import open_source
from tofe_export.engine.backend import Backend, gpu_present, open_backend
from tofe_export.engine.build import Built, build_engine
from tofe_export.engine.inspect import lacks_precision, precisions
from tofe_export.engine.operators import OperatorUse
from tofe_export.engine.options import BuildOptions
from tofe_export.engine.prepare import prepare
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.graph.passes.taps import show_taps
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.runners.base import Runner
from tofe_export.verify.compare import compare_forms
from tofe_export.verify.comparison import Comparison
from tofe_export.verify.opened import read_onnx
from tofe_export.verify.reference import OnnxReference
from tofe_export.verify.tolerances import Overrides, require_used, tolerance_of
from tofe_export.workflows.calibrate_model import CalibrationOptions, calibrate_model, first_step
from tofe_export.workflows.progress import Report, silent
from tofe_export.workflows.quantize_model import coarse_notes

_CHECK_IMAGES = 16
_CARRIED = ("config", "tokens", "prefix", "keep", "stages", "rearrange", "gmacs", "dense_gmacs", "data")
_CARRIED_IF_SAID = ("outputs", "recognised", "weights_sha256")
_CARRIED_PREPROCESSING = ("preprocessing", "preprocessing_sha256")
_CARRIED_QUANTIZATION = ("around", "calibration", "coarse")


@dataclass(frozen=True)
class EngineResult:
    """What was written, TensorRT's warnings and what to know of the ranges, and which images were read and left out."""

    path: Path
    manifest: dict[str, Any]
    warnings: list[str]
    images: ImageLog


def build_from_onnx(
    source: Path,
    target: Path,
    options: BuildOptions,
    report: Report = silent,
    calibration: CalibrationOptions | None = None,
    tolerances: Overrides | None = None,
) -> EngineResult:
    """Builds `target` from `source`; the file appears only when every check has passed.

    On a machine with a GPU the engine is also run and compared with ONNX Runtime: a plugin whose arguments are in a
    wrong order does not fail, it returns garbage.

    Args:
        source: an ONNX file with its manifest.
        target: the engine; its manifest is written beside it.
        options: see there. INT8 and FP8 from a float32 file are calibrated first.
        report: progress.
        calibration: how; None takes the recipe named after the model's training data.
        tolerances: the user's own limits for the comparison with ONNX Runtime.

    Raises:
        InputError: see `read_manifest`, `calibrate_model`, `prepare` and `build_engine`.
        CheckFailedError: see `build_engine`; or the engine does not say what the ONNX file says.
        MissingError: see `open_backend` and `build_engine`.
    """
    if source.suffix != ".onnx":
        raise InputError(f"{source} is no ONNX file.", first_step(source))
    if target.suffix == ".onnx":
        raise InputError(f"{target} would be an engine with the name of an ONNX file.", "Write -o model.engine")
    require_used(tolerances or {}, (options.precision,))
    manifest = read_manifest(source)
    if manifest["precision"] == options.precision and calibration not in (None, CalibrationOptions()):
        raise InputError(
            f"{source} is in {options.precision} already, so no calibration is done.",
            "Leave --recipe, --data and --cache away, or start from the float32 file that tofe-export onnx wrote.",
        )
    backend = open_backend(options.backend)
    model = read_onnx(source)
    if options.taps:
        show_taps(model)
    log = ImageLog()
    with atomic_artefact(target) as draft:
        model, manifest = _quantized(
            source, model, manifest, options.precision, calibration or CalibrationOptions(), report, log
        )
        prepared = prepare(model, backend, options, manifest["precision"])
        built = build_engine(prepared.content, backend, options, prepared.heavy, report)
        draft.path.write_bytes(built.content)
        checked = _check_on_gpu(built, backend, options, source, manifest, tolerances or {}, log)
        draft.manifest = _describe(manifest, source, backend, options, prepared.operators, built) | {"checked": checked}
    notes = coarse_notes(manifest.get("coarse", {}), options.precision)
    return EngineResult(target, draft.manifest, [*built.warnings, *notes], log)


def _quantized(
    source: Path,
    model: ir.Model,
    manifest: dict[str, Any],
    precision: str,
    calibration: CalibrationOptions,
    report: Report,
    log: ImageLog,
) -> tuple[ir.Model, dict[str, Any]]:
    """Model and manifest as they are, or in INT8 or FP8 with FP16 around, if that is what is asked for."""
    if precision not in FORMATS:
        return model, manifest
    if manifest["precision"] == precision:  # quantized before, for ONNX Runtime
        if "calibration" not in manifest or "around" not in manifest:
            raise InputError(f"The manifest of {source} does not say how it was quantized.", "Quantize it again.")
        if manifest["calibration"]["recipe"]["quantize"]["around"] == "auto" and manifest["around"] == "fp32":
            to_half(model, "fp16")
            manifest = {**manifest, "around": "fp16"}
        return model, manifest
    calibrated = calibrate_model(source, model, manifest, calibration, report, log)
    made, around = calibrated.quantize(model, precision, engine=True)
    changed = {"precision": precision, "around": around, "calibration": calibrated.to_dict(), "coarse": made.coarse}
    return made.model, manifest | changed


def _check_on_gpu(
    built: Built,
    backend: Backend,
    options: BuildOptions,
    source: Path,
    manifest: dict[str, Any],
    overrides: Overrides,
    log: ImageLog,
) -> dict[str, Any]:
    """Runs the engine beside ONNX Runtime, and reads its precision back from the inspector.

    Raises:
        CheckFailedError: it is beyond a limit, or the precision that was asked for is in no layer.
    """
    if not gpu_present():
        return {"run": False, "why": "no GPU on the machine that built it"}
    engine = EngineSession(built.content, backend, options.precision)
    inspected = engine.information()
    information = sorted(precisions(inspected))
    if lacks_precision(inspected, options.precision):
        raise CheckFailedError(
            f"No layer of the engine computes in {options.precision}; the inspector finds {', '.join(information)}.",
            "Please report this model.",
        )
    found = compare_engine(engine, options, source, manifest, overrides, log)
    if found.failures:
        raise CheckFailedError(
            f"The engine does not say what {source.name} says: {' '.join(found.failures)}",
            "Try --plugin off to see whether a plugin is at fault, and please report it.",
        )
    measured = next(one for one in (found.logits, found.features, found.own_features) if one.samples)
    return {
        "run": True,
        "samples": found.samples,
        "logits": measured.to_dict(),
        "tolerances": found.tolerance.values(),
        "unjudged": found.unjudged,
        "inspector_precisions": information,
    }


def compare_engine(
    engine: Runner,
    options: BuildOptions,
    source: Path,
    manifest: Mapping[str, Any],
    overrides: Overrides,
    log: ImageLog | None = None,
) -> Comparison:
    """An engine against ONNX Runtime by the rules of `tofe-export verify`, on a few photographs.

    Top-1 agreement is left out unless the user gave a limit: of so few images a single near-tie is too large a share.
    """
    tolerance = tolerance_of(options.precision, overrides)
    if "top1_agreement" not in tolerance.overridden:
        tolerance = replace(tolerance, top1_agreement=0.0)
    preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
    (crops,) = batches(open_source("photos", "val"), preprocessing, _CHECK_IMAGES, limit=_CHECK_IMAGES, log=log)
    count = len(crops.names)
    portions = []
    for size in sorted({options.batch.minimum, options.batch.optimum}):
        at = [place % count for place in range(size)]  # repeats them if need be
        portions.append(Batch(crops.images[at], None, tuple(crops.names[place] for place in at)))
    reference = OnnxReference(source, read_manifest(source))
    (found,) = compare_forms(
        reference, {options.precision: engine}, portions, labelled=False, tolerances={options.precision: tolerance}
    )
    return found


def _describe(
    source: dict[str, Any],
    path: Path,
    backend: Backend,
    options: BuildOptions,
    uses: list[OperatorUse],
    built: Built,
) -> dict[str, Any]:
    return {
        "kind": "engine",
        "source": {"file": readable(path.name), "sha256": sha256(path)},
        "checkpoint": source.get("checkpoint", source["source"]),
        **{name: source[name] for name in (*_CARRIED, *_CARRIED_PREPROCESSING)},
        **{name: source[name] for name in (*_CARRIED_IF_SAID, *_CARRIED_QUANTIZATION) if name in source},
        "precision": options.precision,
        "backend": {
            "name": backend.name,
            "version": backend.version,
            "gpu": torch.cuda.get_device_name() if gpu_present() else None,
        },
        "operators": [asdict(use) for use in uses],
        "network": asdict(built.network),
        "options": options.to_dict(),
        "versions": {**source["versions"], "tofe_export": __version__, backend.module.__name__: backend.version},
    }
