"""`tofe-export quantize --sensitivity`: what it costs to quantize one kind of layer alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tofe_export.artifacts.names import readable
from tofe_export.data.image_log import ImageLog
from tofe_export.graph.stored import serialize
from tofe_export.precision.kinds import ATTENTION, KINDS, quantizable
from tofe_export.precision.quantize import quantize, ranges_of
from tofe_export.precision.recipe import QuantizePart
from tofe_export.verify.comparison import Comparison
from tofe_export.verify.opened import read_onnx
from tofe_export.verify.tolerances import require_used
from tofe_export.workflows.calibrate_model import calibrate_model
from tofe_export.workflows.precision_forms import Form, against_float32
from tofe_export.workflows.progress import Report, silent
from tofe_export.workflows.quantize_model import QuantizeOptions, quantizable_manifest

SCHEMA = "tofe-export/sensitivity/1"


@dataclass(frozen=True)
class Cost:
    """What one kind of layer costs when it alone is quantized."""

    kind: str
    layers: int
    found: Comparison

    @property
    def rank(self) -> tuple[float, float, float]:
        """Greatest cost first: points of accuracy or classes lost, then tokens, then the angle of the logits."""
        found = self.found
        lost = 1 - found.logits.top1_agreement if found.accuracy_lost is None else found.accuracy_lost
        return -lost, found.least_overlap, found.logits.cosine_min


def rank_kinds(
    source: Path, options: QuantizeOptions, report: Report = silent
) -> tuple[list[Cost], dict[str, Any], ImageLog]:
    """Quantizes one kind at a time and compares with float32; the costliest comes first.

    One calibration serves all of them. Nothing is written.

    Returns:
        The costs, the document, and the images that were read and left out.

    Raises:
        InputError: see `calibrate_model`.
    """
    require_used(options.tolerances, (options.precision,))
    manifest, model = quantizable_manifest(source), read_onnx(source)
    calibrated = calibrate_model(source, model, manifest, options.calibration, report)
    ranges = ranges_of(calibrated.histograms, calibrated.recipe)
    present = set(quantizable(model.graph).values())
    data, costs = calibrated.recipe.data.source, []
    for kind in [kind for kind in KINDS if kind in present]:
        made = quantize(model, ranges, only(kind, calibrated.recipe.quantize), options.precision)
        form = Form(options.precision, serialize(made.model))

        def tell(task: str, done: int, total: int, kind: str = kind) -> None:
            report(f"{task}, {kind} alone in 8 bits", done, total)

        (found,) = against_float32(
            source, [form], manifest, data, options.samples, options.tolerances, tell, calibrated.images
        )
        costs.append(Cost(kind, made.layers[kind], found))
    costs.sort(key=lambda cost: cost.rank)
    document = _document(source, costs, calibrated.recipe.quantize, options)
    return costs, document | {"images": calibrated.images.to_dict()}, calibrated.images


def only(kind: str, policy: QuantizePart) -> QuantizePart:
    """`policy` with nothing but `kind` in 8 bits."""
    others = tuple(name for name in KINDS if name not in (kind, ATTENTION))
    return replace(policy, attention=kind == ATTENTION, high_precision=others)


def _document(source: Path, costs: Sequence[Cost], policy: QuantizePart, options: QuantizeOptions) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "model": readable(source.name),
        "precision": options.precision,
        "kinds": [
            {
                "kind": cost.kind,
                "layers": cost.layers,
                "quantized_by_recipe": cost.kind in policy.kinds,
                **cost.found.to_dict(),
            }
            for cost in costs
        ],
    }
