"""tofe-export quantize"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

from typer import Argument, BadParameter, Exit, Option

from tofe_export.bounds import MOST_IMAGES, MOST_PROCESSES, MOST_ROUNDS
from tofe_export.cli import console
from tofe_export.cli.options import as_options

if TYPE_CHECKING:
    from tofe_export.documents.quantization import Quantization, Sensitivity, Speed
    from tofe_export.documents.verification import Agreement

_AGREEMENT = ("same class", "accuracy", "selection overlap", "cosine")
_ROUNDS, _PROCESSES = 3, 5


class _Shared(TypedDict):
    """Arguments of both uses of the verb."""

    precision: Literal["int8", "fp8"]
    recipe: str | None
    data: str | None
    cache: Path | None
    samples: int
    tolerances: dict[str, float]


def quantize(
    model: Annotated[Path, Argument(help="Float32 ONNX file, from tofe-export onnx.", metavar="MODEL.onnx")] = Path(
        "model.onnx"
    ),
    recipe: Annotated[
        str | None, Option(help="Recipe (.toml), or the name of a shipped one; default: that of the training data.")
    ] = None,
    output: Annotated[
        Path | None, Option("--output", "-o", help="File to write; default: MODEL.int8.onnx.", metavar="FILE")
    ] = None,
    fp8: Annotated[bool, Option("--fp8", help="FP8 (E4M3) instead of INT8.")] = False,
    data: Annotated[str | None, Option(help="Images instead of the recipe's: 'digits', 'photos' or a folder.")] = None,
    cache: Annotated[
        Path | None, Option(help="Calibration file to read and write; default: in your cache folder.")
    ] = None,
    samples: Annotated[
        int, Option(help="At most this many held-out images to compare on.", min=1, max=MOST_IMAGES)
    ] = 128,
    rounds: Annotated[
        int | None, Option(help="Rounds of the timing in each process; default: 3.", min=1, max=MOST_ROUNDS)
    ] = None,
    processes: Annotated[
        int | None, Option(help="Fresh processes for the timing; default: 5.", min=1, max=MOST_PROCESSES)
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        Option(help="A limit of your own, as in tofe-export verify, such as int8.kl_mean=0.2; repeatable."),
    ] = None,
    sensitivity: Annotated[
        bool, Option("--sensitivity", help="Write no model; quantize one kind of layer at a time and rank them.")
    ] = False,
    json: Annotated[Path | None, Option(help="Write the result as JSON.", metavar="FILE")] = None,
) -> None:
    """Quantize an exported model to INT8 or FP8, and say whether that is worth it here."""
    from tofe_export.api.quantize import quantize as quantize_model
    from tofe_export.api.sensitivity import sensitivity as rank_kinds
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, beside, require_outputs
    from tofe_export.cli.parse import tolerances
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.precision.recipe import recipe_file

    require_unambiguous(data)
    if sensitivity and output is not None:
        raise BadParameter("--sensitivity writes no model; omit --output.")
    for name, given in (("--rounds", rounds), ("--processes", processes)):
        if sensitivity and given is not None:
            raise BadParameter(f"--sensitivity times nothing; omit {name}.")
    precision: Literal["int8", "fp8"] = "fp8" if fp8 else "int8"
    target = output or beside(model, f".{precision}.onnx")
    written = Output(json, Kind.SENSITIVITY if sensitivity else Kind.QUANTIZE)
    require_outputs([written], [model, None if sensitivity else target, cache, recipe_file(recipe)])
    shared: _Shared = {
        "precision": precision,
        "recipe": recipe,
        "data": data,
        "cache": cache,
        "samples": samples,
        "tolerances": tolerances(tolerance),
    }
    if sensitivity:
        with console.progress() as progress:
            ranking = rank_kinds(model, **shared, progress=progress)
        console.save_json(json, ranking)
        _show_ranking(ranking)
        return
    with console.progress() as progress:
        timing = {"rounds": rounds or _ROUNDS, "processes": processes or _PROCESSES}
        artifact = quantize_model(model, target, **shared, **timing, progress=progress)
    console.save_json(json, artifact.quantization)
    console.warn(*map(as_options, artifact.notes))
    console.say(f"Wrote {artifact.path} and {artifact.path}.json")
    _show(artifact.quantization)
    _exit(artifact.quantization)


def _show(quantization: Quantization) -> None:
    layers, verdict = quantization.layers, quantization.verdict
    console.say(f"  quantized    {_kinds(layers.quantized)}")
    console.say(f"  left alone   {_kinds(layers.high_precision)}, and everything between them")
    _show_table(quantization)
    console.show_images(quantization.images)
    for line in (*verdict.reasons, verdict.summary):
        console.say(line)


def _exit(quantization: Quantization) -> None:
    """Ends with 3 where something was not judged, and with 1 where the model does not agree."""
    if quantization.passed is None:
        checks = quantization.quantized.checks
        console.warn(*(check.message for check in checks if check.name == "tolerances"))
        raise Exit(3)
    if not quantization.passed:
        advice = "See which layers cost it: the same command with --sensitivity, without -o."
        console.warn(f"It does not agree with float32. {advice}")
        raise Exit(1)


def _kinds(layers: dict[str, int]) -> str:
    """ "qkv 12, fc1 12"."""
    return ", ".join(f"{kind} {count}" for kind, count in layers.items()) or "nothing"


def _show_table(quantization: Quantization) -> None:
    agreement = {one.precision: one for one in quantization.agreement}
    rows = [
        (
            speed.precision,
            str(speed.batch),
            f"{speed.p50_ms:.2f}",
            f"{speed.speedup:.2f}",
            _interval(speed),
            *_agreement(agreement.get(speed.precision)),
        )
        for speed in quantization.speed
    ]
    rows += [(one.precision, "", "", "", f"omitted: {one.why}", *_agreement(None)) for one in quantization.left_out]
    title = f"Beside float32; held-out images: {quantization.agreement[0].samples}"
    console.table(title, ("", "batch", "p50 ms", "speed-up", "95% interval", *_AGREEMENT), rows)


def _interval(speed: Speed) -> str:
    if speed.precision == "fp32" or speed.speedup_low is None or speed.speedup_high is None:
        return ""
    return f"{speed.speedup_low:.2f} to {speed.speedup_high:.2f}"


def _agreement(agreement: Agreement | None) -> tuple[str, str, str, str]:
    if agreement is None:
        return "", "", "", ""
    accuracy, logits, same = agreement.accuracy, agreement.logits, agreement.top1_agreement
    return (
        "" if same is None else f"{same:.1%}",
        "" if accuracy is None else f"{accuracy.deployed - accuracy.reference:+.1%}",
        ", ".join(f"{stage.selection_overlap:.3f}" for stage in agreement.stages),
        "" if logits is None else f"{logits.cosine_min:.4f}",
    )


def _show_ranking(ranking: Sensitivity) -> None:
    rows = [
        (cost.kind, str(cost.layers), "yes" if cost.quantized_by_recipe else "no", *_agreement(cost))
        for cost in ranking.kinds
    ]
    title = f"{ranking.precision.upper()} in one kind of layer alone, against float32: the costliest first"
    console.table(title, ("", "layers", "in recipe", *_AGREEMENT), rows)
    console.show_images(ranking.images)
    worst = next((cost.kind for cost in ranking.kinds if cost.kind != "attention"), None)
    if worst is not None:
        spare = f'high_precision = ["{worst}", ...]; for attention: attention = false'
        console.say(f"To spare a kind, name it in the recipe: {spare}.")
