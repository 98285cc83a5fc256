"""tofe-export trt"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, BadParameter, Exit, Option

from tofe_export.bounds import MOST_MIB
from tofe_export.cli import console
from tofe_export.cli.options import as_options
from tofe_export.cli.parse import comma_separated, tolerances

if TYPE_CHECKING:
    from tofe_export.api.build import BuiltArtifact
    from tofe_export.documents.fields import Precision


def trt(
    model: Annotated[Path, Argument(help="ONNX file, from tofe-export onnx.", metavar="MODEL.onnx")] = Path(
        "model.onnx"
    ),
    output: Annotated[
        Path | None, Option("--output", "-o", help="Engine to write; default: MODEL.engine.", metavar="FILE")
    ] = None,
    fp16: Annotated[bool, Option("--fp16", help="Compute in FP16.")] = False,
    bf16: Annotated[bool, Option("--bf16", help="Compute in BF16.")] = False,
    int8: Annotated[bool, Option("--int8", help="Compute in INT8 with FP16 around.")] = False,
    fp8: Annotated[bool, Option("--fp8", help="Compute in FP8 (E4M3) with FP16 around; GPUs from SM89.")] = False,
    recipe: Annotated[
        str | None, Option(help="Calibration recipe for --int8 and --fp8, as in tofe-export quantize.")
    ] = None,
    data: Annotated[str | None, Option(help="Calibration images instead of the recipe's.")] = None,
    cache: Annotated[Path | None, Option(help="Calibration file; default: in your cache folder.")] = None,
    backend: Annotated[str, Option(help="auto, tensorrt or rtx.")] = "auto",
    plugin: Annotated[str, Option(help="auto, on, or off (the operators' function bodies).")] = "auto",
    batch: Annotated[str, Option(help="Batch sizes the engine takes.", metavar="MIN:OPT:MAX")] = "1:8:64",
    workspace: Annotated[int | None, Option(help="Most scratch memory, in MiB.", min=1, max=MOST_MIB)] = None,
    timing_cache: Annotated[Path | None, Option(help="Kernel timings to reuse (tensorrt).")] = None,
    version_compatible: Annotated[
        bool, Option("--version-compatible", help="For later TensorRT versions too (tensorrt).")
    ] = False,
    hardware_compat: Annotated[str, Option(help="none, ampere_plus or same_compute_capability (tensorrt).")] = "none",
    compute_capability: Annotated[
        str, Option(help="GPUs to compile for (rtx); default: those of any.", metavar="86,120")
    ] = "",
    tolerance: Annotated[
        list[str] | None,
        Option(help="A limit of your own for the check on a GPU, as in tofe-export verify; repeatable."),
    ] = None,
    taps: Annotated[bool, Option("--taps", help="Add per-stage scores, perm and tokens as outputs.")] = False,
) -> None:
    """Build a TensorRT or TensorRT-RTX engine, its precision read back."""
    from tofe_export.api.build import build
    from tofe_export.data.sources import require_unambiguous

    require_unambiguous(data)
    limits = tolerances(tolerance)
    if any(name.rpartition(".")[2] == "accuracy_lost" for name in limits):
        raise BadParameter("accuracy_lost needs labels, which trt does not look at; give it to verify.")
    with console.progress() as progress:
        artifact = build(
            model,
            output,
            precision=_precision(fp16=fp16, bf16=bf16, int8=int8, fp8=fp8),
            backend=backend,
            plugin=plugin,
            batch=batch,
            recipe=recipe,
            data=data,
            cache=cache,
            workspace_mib=workspace,
            timing_cache=timing_cache,
            version_compatible=version_compatible,
            hardware=hardware_compat,
            compute_capabilities=(
                comma_separated(compute_capability, "--compute-capability") if compute_capability else ()
            ),
            tolerances=limits,
            taps=taps,
            progress=progress,
        )
    console.warn(*map(as_options, artifact.warnings))
    console.show_images(artifact.images)
    _show(artifact)
    checked = artifact.manifest.checked
    unjudged = checked.unjudged if checked is not None and checked.run else tuple(limits)
    if unjudged:
        console.warn(f"Your own limits were not judged: {', '.join(unjudged)}. Build with --taps, on a GPU.")
        raise Exit(3)


def _show(artifact: BuiltArtifact) -> None:
    from tofe_export.engine.network import heavy_layers

    manifest = artifact.manifest
    engine, checked = manifest.backend, manifest.checked
    console.say(f"Wrote {artifact.path} and {artifact.path}.json")
    console.say(f"  backend      {engine.name} {engine.version}, batch {manifest.options.batch}")
    heavy = heavy_layers(manifest.network).items()
    layers = "; ".join(f"{kind} {console.counted(precisions)}" for kind, precisions in heavy if precisions)
    console.say(f"  precision    {manifest.precision}; in the network: {layers}")
    for use in manifest.operators:
        console.say(f"  operator     {use.operator} x {use.nodes}: {use.by} ({use.why})")
    if checked is None or not checked.run:
        console.say(f"  run          not run: {'' if checked is None else checked.why}")
    elif checked.logits is not None:
        cosine = checked.logits.cosine_min
        least = "" if cosine is None else f", least cosine {cosine:.6f} against ONNX Runtime"
        console.say(f"  run          {checked.samples} images{least}")


def _precision(**flags: bool) -> Precision:
    from tofe_export.documents.fields import PRECISIONS

    chosen = [precision for precision in PRECISIONS if flags.get(precision)]
    if len(chosen) > 1:
        raise BadParameter(f"--{chosen[0]} and --{chosen[1]} were both given; give one.")
    return chosen[0] if chosen else "fp32"
