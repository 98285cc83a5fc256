"""An engine that was just built, against the ONNX file that it was built from. Requires a GPU."""

from __future__ import annotations

from dataclasses import replace

from tofe_export.artifacts.artifact import Artifact
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import Batch, batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import open_source
from tofe_export.documents.manifest import GpuCheck
from tofe_export.engine.backend import Backend, gpu_present
from tofe_export.engine.network import lacks_precision, precisions
from tofe_export.engine.options import BuildOptions
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import CheckFailedError
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.reference import OnnxReference
from tofe_export.parity.side_by_side import compare_forms
from tofe_export.parity.tolerances import Overrides, tolerance_of
from tofe_export.runners.base import Runner

_IMAGES = 16


def check_built_engine(
    content: bytes, backend: Backend, options: BuildOptions, source: Artifact, limits: Overrides, log: ImageLog
) -> GpuCheck:
    """Runs the engine beside ONNX Runtime, and reads its precision back from the inspector.

    Raises:
        CheckFailedError: it is beyond a limit, or no layer has the wanted precision.
    """
    if not gpu_present():
        return GpuCheck(run=False, why="no GPU on the machine that built it")
    if backend.obstacle:
        return GpuCheck(run=False, why=backend.obstacle)
    engine = EngineSession(content, backend, options.precision)
    information = engine.information()
    inspected = sorted(precisions(information))
    if lacks_precision(information, options.precision):
        raise CheckFailedError(
            f"No layer of the engine computes in {options.precision}; the inspector reports {', '.join(inspected)}.",
            "Please report this model.",
            code="engine-precision",
        )
    comparison = compare_engine(engine, options, source, limits, log)
    if comparison.failures:
        raise CheckFailedError(
            f"The engine does not agree with {source.path.name}: {' '.join(comparison.failures)}",
            "Try `plugin='off'` to see whether a plugin is at fault, and please report it.",
            code="engine-parity",
        )
    agreement = comparison.agreement()
    return GpuCheck(
        run=True,
        samples=agreement.samples,
        logits=agreement.logits or agreement.features or agreement.own_features,
        tolerances=agreement.tolerances,
        unjudged=tuple(comparison.unjudged),
        inspector_precisions=tuple(inspected),
    )


def compare_engine(
    engine: Runner, options: BuildOptions, source: Artifact, limits: Overrides, log: ImageLog | None = None
) -> Comparison:
    """An engine against ONNX Runtime by the rules of `verify`, on a few photographs.

    Top-1 agreement is not limited unless the user did so: of so few images a single near-tie is too large a share.
    """
    tolerance = tolerance_of(options.precision, limits)
    if "top1_agreement" not in tolerance.overridden:
        tolerance = replace(tolerance, top1_agreement=0.0)
    preprocessing = Preprocessing.of(source.manifest.preprocessing)
    (crops,) = batches(open_source("photos", "val"), preprocessing, _IMAGES, limit=_IMAGES, log=log)
    count = len(crops.names)
    portions = []
    for size in sorted({options.batch.minimum, options.batch.optimum}):
        places = [place % count for place in range(size)]  # the images repeat where there are too few
        portions.append(Batch(crops.images[places], None, tuple(crops.names[place] for place in places)))
    forms, tolerances = {options.precision: engine}, {options.precision: tolerance}
    (comparison,) = compare_forms(OnnxReference(source), forms, portions, labelled=False, tolerances=tolerances)
    return comparison
