"""tofe-export quantize"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tofe_export.bounds import MOST_IMAGES, MOST_ROUNDS
from tofe_export.cli import console
from tofe_export.cli.images import show_images


def quantize(
    model: Annotated[
        Path, typer.Argument(help="Float32 ONNX file, from tofe-export onnx.", metavar="MODEL.onnx")
    ] = Path("model.onnx"),
    recipe: Annotated[
        str | None,
        typer.Option(help="Recipe (.toml), or the name of a shipped one; default: that of the training data."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: MODEL.int8.onnx.", metavar="FILE")
    ] = None,
    fp8: Annotated[bool, typer.Option("--fp8", help="FP8 (E4M3) instead of INT8.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Images instead of the recipe's: 'digits', 'photos' or a folder.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Calibration file to read and write; default: in your cache folder.")
    ] = None,
    samples: Annotated[
        int, typer.Option(help="At most so many held-out images to compare on.", min=1, max=MOST_IMAGES)
    ] = 128,
    rounds: Annotated[
        int | None, typer.Option(help="Rounds of interleaved runs for the timing; default: 15.", min=1, max=MOST_ROUNDS)
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="A limit of your own, as in tofe-export verify, such as int8.kl_mean=0.2; repeatable."),
    ] = None,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Write no model; quantize one kind of layer at a time and rank them.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the result as JSON.", metavar="FILE")] = None,
) -> None:
    """Quantize an exported model to INT8 or FP8, and say whether that is worth it here."""
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, beside, require_outputs
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.verify.tolerances import parse_overrides
    from tofe_export.workflows.calibrate_model import CalibrationOptions, files_read, without_cache
    from tofe_export.workflows.precision_forms import Timing
    from tofe_export.workflows.quantize_model import QuantizeOptions, quantize_model

    precision = "fp8" if fp8 else "int8"
    require_unambiguous(data)
    calibration = CalibrationOptions(recipe, data, cache)
    timing = Timing() if rounds is None else Timing(rounds=rounds)
    options = QuantizeOptions(precision, calibration, samples, timing, parse_overrides(tolerance or ()))
    if sensitivity:
        if output is not None:
            raise typer.BadParameter("--sensitivity writes no model; leave --output away.")
        if rounds is not None:
            raise typer.BadParameter("--sensitivity times nothing; leave --rounds away.")
        require_outputs(
            [Output(json, Kind.SENSITIVITY), Output(cache, Kind.CALIBRATION)], [model, *files_read(calibration)]
        )
        console.warn(without_cache(calibration))
        _rank(model, options, json)
        return
    target = output or beside(model, f".{precision}.onnx")
    require_outputs(
        [Output(target, Kind.ONNX), Output(json, Kind.QUANTIZE), Output(cache, Kind.CALIBRATION)],
        [model, *files_read(calibration)],
    )
    console.warn(without_cache(calibration))
    with console.progress() as report:
        result = quantize_model(model, target, options, report)
    document = result.document
    console.save_json(json, document)
    console.warn(result.notes)
    console.say(f"Wrote {result.path} and {result.path}.json")
    console.say(f"  quantized    {_kinds(document['layers']['quantized'])}")
    console.say(f"  left alone   {_kinds(document['layers']['high_precision'])}, and everything between them")
    _show(document)
    show_images(result.images)
    for reason in document["verdict"]["reasons"]:
        console.say(reason)
    console.say(document["verdict"]["summary"])
    if document["passed"] is None:
        unjudged = [check["message"] for check in _of(document, precision)["checks"] if check["name"] == "tolerances"]
        console.warn(unjudged)
        raise typer.Exit(3)
    if not document["passed"]:
        console.warn(
            [
                "It does not agree with float32. "
                "See which layers cost it: the same command with --sensitivity, without -o."
            ]
        )
        raise typer.Exit(1)


def _of(document: dict[str, Any], precision: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in document["agreement"] if one["precision"] == precision)
    return found


def _kinds(layers: dict[str, int]) -> str:
    """ "qkv 12, fc1 12"."""
    return ", ".join(f"{kind} {count}" for kind, count in layers.items()) or "nothing"


def _show(document: dict[str, Any]) -> None:
    found = {item["precision"]: item for item in document["agreement"]}
    rows = []
    for speed in document["speed"]:
        name = speed["precision"]
        rows.append(
            (
                name,
                str(speed["batch"]),
                f"{speed['p50_ms']:.2f}",
                f"{speed['speedup']:.2f}",
                "" if name == "fp32" else f"{speed['speedup_low']:.2f} to {speed['speedup_high']:.2f}",
                *_agreement(found.get(name)),
            )
        )
    columns = (
        "",
        "batch",
        "p50 ms",
        "speed-up",
        "95% interval",
        "same class",
        "accuracy",
        "selection overlap",
        "cosine",
    )
    rows += [
        (left["precision"], "", "", "", f"left out: {left['why']}", *_agreement(None)) for left in document["left_out"]
    ]
    console.table(f"Beside float32; held-out images: {document['agreement'][0]['samples']}", columns, rows)


def _agreement(found: dict[str, Any] | None) -> tuple[str, str, str, str]:
    if found is None:
        return "", "", "", ""
    accuracy = found["accuracy"]
    return (
        f"{found['top1_agreement']:.1%}",
        f"{accuracy['deployed'] - accuracy['reference']:+.1%}" if accuracy else "",
        ", ".join(f"{stage['selection_overlap']:.3f}" for stage in found["stages"]),
        f"{found['logits']['cosine_min']:.4f}",
    )


def _rank(model: Path, options: Any, json: Path | None) -> None:
    from tofe_export.workflows.sensitivity import rank_kinds

    with console.progress() as report:
        costs, document, images = rank_kinds(model, options, report)
    console.save_json(json, document)
    rows = [
        (
            item["kind"],
            str(item["layers"]),
            "yes" if item["quantized_by_recipe"] else "no",
            *_agreement(item),
        )
        for item in document["kinds"]
    ]
    title = f"{options.precision.upper()} in one kind of layer alone, against float32: the costliest first"
    console.table(title, ("", "layers", "in recipe", "same class", "accuracy", "selection overlap", "cosine"), rows)
    show_images(images)
    worst = next((cost.kind for cost in costs if cost.kind != "attention"), None)
    if worst is None:
        return
    console.say(
        f'To spare a kind, name it in the recipe: high_precision = ["{worst}", ...]; for attention: attention = false.'
    )
