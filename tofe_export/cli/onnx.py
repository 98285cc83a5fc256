"""tofe-export onnx"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tofe_export.cli import console
from tofe_export.cli.parse import whole_numbers


class Rearrange(StrEnum):
    """How tokens lie between stages: put back by the ScatterRearrange operator, or left by rank."""

    plugin = "plugin"
    elide = "elide"


def onnx(
    checkpoint: Annotated[Path, typer.Argument(help="ToFe checkpoint (.pth or .safetensors).", metavar="CKPT")],
    output: Annotated[Path, typer.Option("--output", "-o", help="ONNX file to write.")] = Path("model.onnx"),
    keep: Annotated[
        str | None, typer.Option(help="Keep counts by hand, one a stage: 96,49,27.", metavar="K1,K2,K3")
    ] = None,
    keep_from: Annotated[
        str | None,
        typer.Option(
            help="Take keep counts from images: 'digits', 'photos', a folder, or a recipe (.toml).", metavar="DATA"
        ),
    ] = None,
    keep_quantile: Annotated[
        float | None, typer.Option(help="Which quantile of their counts, 0 to 1; default: 0.5.", metavar="Q")
    ] = None,
    keep_samples: Annotated[
        int | None, typer.Option(help="At most so many of those images; default: 1000.", min=1)
    ] = None,
    rearrange: Annotated[
        Rearrange, typer.Option(help="plugin: spatial order after each stage; elide: left by rank.")
    ] = Rearrange.plugin,
    taps: Annotated[bool, typer.Option("--taps", help="Add per-stage scores, perm and tokens as outputs.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Images of the parity check: 'digits', 'photos' or a folder.")
    ] = None,
) -> None:
    """Export a checkpoint to ONNX, checked, run at two batch sizes and compared with PyTorch."""
    from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx
    from tofe_export.workflows.keep_counts import KeepOptions

    options = OnnxOptions(
        keep=KeepOptions(
            whole_numbers(keep, "--keep") if keep is not None else None, keep_from, keep_quantile, keep_samples
        ),
        rearrange=rearrange is Rearrange.plugin,
        taps=taps,
        data=data,
    )
    with console.progress() as report:
        result = export_onnx(checkpoint, output, options, report)
    console.warn(result.skipped)
    found, manifest = result.comparison, result.manifest
    console.say(f"Wrote {result.path} and {result.path}.json")
    counts = ",".join(map(str, result.keep))
    console.say(f"  keep counts  {counts} of {manifest['tokens']} tokens ({manifest['options']['keep_source']})")
    console.say(
        f"  cost         {manifest['gmacs']:.3f} GMACs, {manifest['gmacs'] / manifest['dense_gmacs']:.1%} of dense"
    )
    console.say(
        f"  parity       {found.logits.samples} images: logits max_abs {found.logits.max_abs:.1e}, "
        f"top-1 agreement {found.logits.top1_agreement:.0%}"
    )
    console.say(f"Next:  tofe-export verify {result.path} --against {checkpoint}")
