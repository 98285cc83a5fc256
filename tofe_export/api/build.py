"""From an ONNX file to a TensorRT or TensorRT-RTX engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import torch

from tofe_export import __version__
from tofe_export.api.load import AnyArtifact, open_onnx, path_of
from tofe_export.api.quantize import coarse_notes
from tofe_export.artifacts.artifact import Artifact
from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, beside, require_outputs
from tofe_export.artifacts.sets import atomic_artifact
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.fields import Precision
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.manifest import EngineBackend, EngineManifest, FileIdentity, GpuCheck, OnnxManifest
from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.engine.backend import Backend, gpu_present, open_backend
from tofe_export.engine.build import Built, build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.errors import InputError
from tofe_export.files.names import readable
from tofe_export.graph.passes.taps import show_taps
from tofe_export.graph.stored import copy_model
from tofe_export.parity.built_engine import check_built_engine
from tofe_export.parity.tolerances import Overrides, check_overrides
from tofe_export.precision.calibrated import calibrate_model, choose_recipe, require_float32
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.precision.recipe import recipe_file
from tofe_export.progress import Progress, silent


@dataclass(frozen=True)
class BuiltArtifact(Artifact):
    """An engine that was just built.

    Attributes:
        warnings: TensorRT's, and what the user should know about the ranges.
        images: which images were read and omitted.
    """

    manifest: EngineManifest
    warnings: tuple[str, ...]
    images: ImagesRead


def build(
    model: AnyArtifact,
    path: Path | str | None = None,
    *,
    precision: Precision = "fp32",
    backend: str = "auto",
    plugin: str = "auto",
    batch: int | str | Sequence[int] = (1, 8, 64),
    recipe: CalibrationRecipe | Path | str | None = None,
    data: str | Path | None = None,
    cache: Path | str | None = None,
    workspace_mib: int | None = None,
    timing_cache: Path | str | None = None,
    version_compatible: bool = False,
    hardware: str = "none",
    compute_capabilities: Sequence[str] = (),
    tolerances: Overrides | None = None,
    taps: bool = False,
    progress: Progress = silent,
) -> BuiltArtifact:
    """Builds an engine; the file appears only when every check has passed.

    On a machine with a GPU the engine is also run and compared with ONNX Runtime: a plugin whose arguments are in a
    wrong order does not fail, it returns garbage.

    Args:
        model: an ONNX file with its manifest.
        path: the engine, beside which its manifest is written; None means `model.engine` beside `model`.
        precision: what the engine computes in. INT8 and FP8 from a float32 file are calibrated first.
        recipe, data, cache: of that calibration, as in `quantize`.
        backend, plugin, workspace_mib, timing_cache, version_compatible, hardware, compute_capabilities: see
            `BuildOptions`.
        batch: the batch sizes that the engine takes: the least, the usual and the largest, also as "1:8:64"; or one
            fixed size.
        tolerances: limits of your own for the comparison with ONNX Runtime.
        taps: per-stage scores, perm and tokens are outputs too, for verification stage by stage.
        progress: called with what is being done, steps done, steps in all.

    Raises:
        InputError: see `read_manifest`, `calibrate_model` and `build_engine`; or a path that must not or cannot be
            written.
        CheckFailedError: see `build_engine`; or the engine does not agree with the ONNX file.
        MissingError: see `open_backend` and `build_engine`.
    """
    file = path_of(model)
    target = beside(file, ".engine") if path is None else Path(path)
    timings = None if timing_cache is None else Path(timing_cache)
    kept_in = None if cache is None else Path(cache)
    options = BuildOptions(
        precision=precision,
        backend=backend,
        plugin=plugin,
        batch=BatchProfile.of(batch),
        workspace_mib=workspace_mib,
        timing_cache=timings,
        version_compatible=version_compatible,
        hardware=hardware,
        compute_capabilities=tuple(compute_capabilities),
        taps=taps,
    )
    limits = tolerances or {}
    check_overrides(limits, (precision,))
    require_outputs(
        [Output(target, Kind.ENGINE), Output(kept_in, Kind.CALIBRATION), Output(timings, Kind.TIMINGS)],
        [file, recipe_file(recipe)],
    )
    _require_engine_name(target)
    source = open_onnx(model)
    if (recipe, data, cache) != (None, None, None):
        _require_calibrated(source, precision)
    installed, log = open_backend(backend), ImageLog()
    graph = copy_model(source.graph)
    if taps:
        show_taps(graph)
    with atomic_artifact(target) as draft:
        graph, known = _in_precision(source, graph, precision, recipe, data, kept_in, log, progress)
        built = build_engine(graph, installed, options, known.precision, progress)
        draft.path.write_bytes(built.content)
        checked = check_built_engine(built.content, installed, options, source, limits, log)
        draft.manifest = _manifest(source, known, installed, options, built, checked)
    assert isinstance(draft.manifest, EngineManifest)
    notes = coarse_notes(draft.manifest.coarse, precision)
    return BuiltArtifact(target, draft.manifest, (*built.warnings, *notes), log.document())


def _require_engine_name(target: Path) -> None:
    if target.suffix == ".onnx":
        raise InputError(
            f"{target} would be an engine with the name of an ONNX file.",
            "Name it model.engine.",
            code="engine-named-onnx",
            path=target,
        )


def _require_calibrated(source: Artifact, precision: Precision) -> None:
    """Raises InputError unless the engine is calibrated, as the arguments of a calibration say."""
    if precision not in FORMATS:
        raise InputError(
            "`recipe`, `data` and `cache` are for engines in INT8 and FP8.",
            "Omit them, or choose such a `precision`.",
            code="calibration-unused",
        )
    if source.manifest.precision == precision:
        raise InputError(
            f"{source.path} is in {precision} already, so it is not calibrated.",
            "Omit `recipe`, `data` and `cache`, or start from the float32 file.",
            code="calibration-unused",
            path=source.path,
        )


def _in_precision(
    source: Artifact,
    model: ir.Model,
    precision: Precision,
    recipe: CalibrationRecipe | Path | str | None,
    data: Path | str | None,
    cache: Path | None,
    log: ImageLog,
    progress: Progress,
) -> tuple[ir.Model, OnnxManifest]:
    """Model and manifest as they are, or in INT8 or FP8 with FP16 around, if that is what is wanted."""
    manifest = source.manifest
    assert isinstance(manifest, OnnxManifest)
    if precision not in FORMATS:
        return model, manifest
    if manifest.precision == precision:  # quantized before, for ONNX Runtime
        if manifest.calibration is None or manifest.around is None:
            raise InputError(
                f"The manifest of {source.path} does not say how it was quantized.",
                "Quantize it again.",
                code="manifest-field",
                field="calibration",
                path=source.path,
            )
        if manifest.calibration.recipe.quantize.around == "auto" and manifest.around == "fp32":
            to_half(model, "fp16")
            manifest = manifest.replaced(around="fp16")
        return model, manifest
    require_float32(model, manifest.precision, str(source.path))
    chosen = choose_recipe(recipe, data, manifest.data)
    calibrated = calibrate_model(model, manifest, chosen, log, cache, progress)
    quantized, around = calibrated.quantized(model, precision, engine=True)
    changes = {"around": around, "calibration": calibrated.document(), "coarse": quantized.coarse}
    return quantized.model, manifest.replaced(precision=precision, **changes)


def _manifest(
    source: Artifact,
    known: OnnxManifest,
    backend: Backend,
    options: BuildOptions,
    built: Built,
    checked: GpuCheck,
) -> EngineManifest:
    shared = known.shared() | {
        "checkpoint": known.origin,
        "precision": options.precision,
        "versions": {**known.versions, "tofe_export": __version__, backend.module.__name__: backend.version},
    }
    gpu = torch.cuda.get_device_name() if gpu_present() else None
    return EngineManifest(
        **shared,
        source=FileIdentity(file=readable(source.path.name), sha256=source.manifest.sha256),
        backend=EngineBackend(name=backend.name, version=backend.version, gpu=gpu),
        operators=tuple(built.operators),
        network=built.network,
        options=options.document(),
        checked=checked,
    )
