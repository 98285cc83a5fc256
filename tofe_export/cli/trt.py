"""tofe-export trt"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tofe_export.bounds import MOST_MIB
from tofe_export.cli import console
from tofe_export.cli.images import show_images


def trt(
    model: Annotated[Path, typer.Argument(help="ONNX file, from tofe-export onnx.", metavar="MODEL.onnx")] = Path(
        "model.onnx"
    ),
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Engine to write; default: MODEL.engine.", metavar="FILE")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Compute in FP16.")] = False,
    bf16: Annotated[bool, typer.Option("--bf16", help="Compute in BF16.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Compute in INT8 with FP16 around.")] = False,
    fp8: Annotated[bool, typer.Option("--fp8", help="Compute in FP8 (E4M3) with FP16 around; GPUs from SM89.")] = False,
    recipe: Annotated[
        str | None, typer.Option(help="Calibration recipe for --int8 and --fp8, as in tofe-export quantize.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="Calibration images instead of the recipe's.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Calibration file; default: in your cache folder.")] = None,
    backend: Annotated[str, typer.Option(help="auto, tensorrt or rtx.")] = "auto",
    plugin: Annotated[str, typer.Option(help="auto, on, or off (the operators' function bodies).")] = "auto",
    batch: Annotated[str, typer.Option(help="Batch sizes the engine takes.", metavar="MIN:OPT:MAX")] = "1:8:64",
    workspace: Annotated[int | None, typer.Option(help="Most scratch memory, in MiB.", min=1, max=MOST_MIB)] = None,
    timing_cache: Annotated[Path | None, typer.Option(help="Kernel timings to reuse (tensorrt).")] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="For later TensorRT versions too (tensorrt).")
    ] = False,
    hardware_compat: Annotated[
        str, typer.Option(help="none, ampere_plus or same_compute_capability (tensorrt).")
    ] = "none",
    compute_capability: Annotated[
        str | None, typer.Option(help="GPUs to compile for (rtx); default: those of any.", metavar="86,120")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(help="A limit of your own for the check on a GPU, as in tofe-export verify; repeatable."),
    ] = None,
    taps: Annotated[bool, typer.Option("--taps", help="Add per-stage scores, perm and tokens as outputs.")] = False,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine, its precision read back."""
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.outputs import Output, beside, require_outputs
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.engine.options import BatchProfile, BuildOptions
    from tofe_export.verify.tolerances import parse_overrides
    from tofe_export.workflows.build_engine import build_from_onnx
    from tofe_export.workflows.calibrate_model import CalibrationOptions, files_read, without_cache

    precision = _precision(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8)
    if (recipe or data or cache) and not (int8 or fp8):
        raise typer.BadParameter("--recipe, --data and --cache are for --int8 and --fp8.")
    require_unambiguous(data)
    options = BuildOptions(
        precision=precision,
        backend=backend,
        plugin=plugin,
        batch=BatchProfile.parse(batch),
        workspace_mib=workspace,
        timing_cache=timing_cache,
        version_compatible=version_compatible,
        hardware=hardware_compat,
        compute_capabilities=tuple(part.strip() for part in compute_capability.split(","))
        if compute_capability
        else (),
        taps=taps,
    )
    target, calibration = output or beside(model, ".engine"), CalibrationOptions(recipe, data, cache)
    limits = parse_overrides(tolerance or ())
    if any(limit == "accuracy_lost" for _, limit in limits):
        raise typer.BadParameter("accuracy_lost needs labels, which trt does not look at; give it to verify.")
    require_outputs(
        [Output(target, Kind.ENGINE), Output(cache, Kind.CALIBRATION), Output(timing_cache, Kind.TIMINGS)],
        [model, *files_read(calibration)],
    )
    console.warn(without_cache(calibration) if int8 or fp8 else [])
    with console.progress() as report:
        result = build_from_onnx(model, target, options, report, calibration, limits)
    console.warn(result.warnings)
    show_images(result.images)
    manifest = result.manifest
    console.say(f"Wrote {result.path} and {result.path}.json")
    console.say(f"  backend      {manifest['backend']['name']} {manifest['backend']['version']}, batch {options.batch}")
    heavy = {kind: manifest["network"]["layers"].get(kind, {}) for kind in ("MATRIX_MULTIPLY", "CONVOLUTION")}
    console.say(f"  precision    {manifest['precision']}; in the network: {describe_layers(heavy)}")
    for use in manifest["operators"]:
        console.say(f"  operator     {use['operator']} x {use['nodes']}: {use['by']} ({use['why']})")
    checked = manifest["checked"]
    if checked["run"]:
        found = f"{checked['samples']} images, least cosine {checked['logits']['cosine_min']:.6f} against ONNX Runtime"
        console.say(f"  run          {found}")
    else:
        console.say(f"  run          not run: {checked['why']}")
    unjudged = checked["unjudged"] if checked["run"] else [limit for _, limit in limits]
    if unjudged:
        console.warn([f"Your own limits were not judged: {', '.join(unjudged)}. Build with --taps, on a GPU."])
        raise typer.Exit(3)


def _precision(**flags: bool) -> str:
    chosen = [name for name, given in flags.items() if given]
    if len(chosen) > 1:
        raise typer.BadParameter(f"--{chosen[0]} and --{chosen[1]} were both given; take one.")
    return chosen[0] if chosen else "fp32"


def describe_layers(layers: dict[str, dict[str, int]]) -> str:
    """ "MATRIX_MULTIPLY 96 fp16, 3 fp32; CONVOLUTION 1 fp16"."""
    return "; ".join(
        f"{kind} {', '.join(f'{count} {name}' for name, count in counts.items())}"
        for kind, counts in layers.items()
        if counts
    )
