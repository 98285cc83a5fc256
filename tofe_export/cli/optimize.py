"""tofe-export optimize"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, Option

from tofe_export.cli import console
from tofe_export.files.commands import command

if TYPE_CHECKING:
    from tofe_export.api.optimize import OptimizedArtifact


def optimize(
    model: Annotated[Path, Argument(help="ONNX file, from tofe-export onnx or quantize.", metavar="MODEL.onnx")] = Path(
        "model.onnx"
    ),
    target: Annotated[
        Literal["onnxruntime", "openvino", "tensorrt", "any"],
        Option("--for", help="The runtime; any: standard operators alone, for readers without model-local functions."),
    ] = "onnxruntime",
    output: Annotated[
        Path | None, Option("--output", "-o", help="File to write; default: MODEL.onnxruntime.onnx.", metavar="FILE")
    ] = None,
    bf16: Annotated[bool, Option("--bf16", help="OpenVINO computes in BF16, on processors that can.")] = False,
    weights: Annotated[
        Literal["fp32", "int8"],
        Option(help="int8: ONNX Runtime's weights in 8 bits, selectors excepted; measure whether it pays."),
    ] = "fp32",
    input: Annotated[
        Literal["tensor", "image"], Option(help="image: take uint8 [B,H,W,3] of any size and prepare it, as in onnx.")
    ] = "tensor",
    classes: Annotated[
        int | None, Option(help="Return the N most probable classes in place of logits.", min=1, metavar="N")
    ] = None,
    data: Annotated[str | None, Option(help="Images of the comparison: 'digits', 'photos' or a folder.")] = None,
) -> None:
    """Rewrite a model for a runtime, and compare it there with the file it was made of."""
    from tofe_export.api.optimize import optimize as optimize_model
    from tofe_export.data.sources import require_unambiguous

    require_unambiguous(data)
    with console.progress() as progress:
        artifact = optimize_model(
            model,
            output,
            target=target,
            precision="bf16" if bf16 else "fp32",
            weights=weights,
            input=input,
            classes=classes,
            data=data,
            progress=progress,
        )
    _show(artifact, model)
    console.show_images(artifact.images)


def _show(artifact: OptimizedArtifact, source: Path) -> None:
    manifest, agreement = artifact.manifest, artifact.agreement
    console.say(f"Wrote {artifact.path} and {artifact.path}.json")
    for name, places in manifest.options.passes.items():
        console.say(f"  {name:<12} {places} places")
    if agreement.logits is not None:
        console.say(
            f"  parity       {agreement.samples} images: logits max_abs {agreement.logits.max_abs:.1e}, "
            f"same class {agreement.top1_agreement or 0.0:.0%}"
        )
    console.show_ends(artifact.ends, manifest.options)
    console.say(f"Next:  {command('bench', artifact.path, source)}")
