"""What it costs to quantize one kind of layer alone."""

from __future__ import annotations

from pathlib import Path

from tofe_export.api.load import AnyArtifact
from tofe_export.api.quantize import QuantizedPrecision, checked, require_quantized
from tofe_export.data.image_log import ImageLog
from tofe_export.documents.quantization import KindCost, Sensitivity
from tofe_export.documents.recipe import ATTENTION, KINDS, CalibrationRecipe
from tofe_export.files.names import readable
from tofe_export.graph.stored import serialize
from tofe_export.parity.tolerances import Overrides, check_overrides
from tofe_export.precision.calibrated import calibrate_model
from tofe_export.precision.kinds import quantizable
from tofe_export.precision.quantize import quantize_graph, ranges_of
from tofe_export.progress import Progress, silent
from tofe_export.timing.forms import Form, against_float32


def sensitivity(
    model: AnyArtifact,
    *,
    precision: QuantizedPrecision = "int8",
    recipe: CalibrationRecipe | Path | str | None = None,
    data: str | Path | None = None,
    cache: Path | str | None = None,
    samples: int = 128,
    tolerances: Overrides | None = None,
    progress: Progress = silent,
) -> Sensitivity:
    """Quantizes one kind of layer at a time and compares with float32; the costliest comes first.

    One calibration serves all of them. No model is written. The arguments are those of `quantize`.

    Raises:
        InputError: see `quantize`.
    """
    limits, log = tolerances or {}, ImageLog()
    require_quantized(precision)
    check_overrides(limits, (precision,))
    kept_in = None if cache is None else Path(cache)
    source, chosen = checked(model, recipe, data, samples, [], kept_in)
    calibrated = calibrate_model(source.graph, source.manifest, chosen, log, kept_in, progress)
    ranges, present = ranges_of(calibrated.histograms, chosen.ranges), set(quantizable(source.graph.graph).values())
    costs = []
    for kind in [kind for kind in KINDS if kind in present]:
        others = tuple(name for name in KINDS if name not in (kind, ATTENTION))
        alone = chosen.quantize.replaced(attention=kind == ATTENTION, high_precision=others)
        quantized = quantize_graph(source.graph, ranges, alone, precision)
        form = Form(precision, serialize(quantized.model))

        def of_kind(task: str, done: int, total: int, kind: str = kind) -> None:
            progress(f"{task}, {kind} alone in 8 bits", done, total)

        (agreement,) = against_float32(source, [form], chosen.data.source, samples, limits, log, of_kind)
        costs.append(
            KindCost(
                **{**dict(agreement), "kind": kind},
                layers=quantized.layers.quantized[kind],
                quantized_by_recipe=kind in chosen.quantize.kinds,
            )
        )
    return Sensitivity(
        model=readable(source.path.name),
        precision=precision,
        kinds=tuple(sorted(costs, key=_rank)),
        images=log.document(),
    )


def _rank(cost: KindCost) -> tuple[float, float, float]:
    """Greatest cost first: points of accuracy or classes lost, then tokens, then the angle of the logits."""
    accuracy = cost.accuracy
    lost = 1 - (cost.top1_agreement or 0.0) if accuracy is None else accuracy.reference - accuracy.deployed
    overlap = 1.0 if cost.least_overlap is None else cost.least_overlap
    return -lost, overlap, 1.0 if cost.logits is None else cost.logits.cosine_min
