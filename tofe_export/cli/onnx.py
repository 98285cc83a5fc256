"""tofe-export onnx"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tofe_export.artifacts.commands import command
from tofe_export.bounds import MOST_IMAGES
from tofe_export.cli import console, hints
from tofe_export.cli.images import show_images
from tofe_export.cli.parse import counts_or_ratios, names

if TYPE_CHECKING:
    from tofe_export.workflows.export_onnx import OnnxResult

_OUTPUTS = {"logits": "logits", "features": "features", "tokens": "features"}  # two words for the patch tokens


class Rearrange(StrEnum):
    """How tokens lie between stages: put back by the ScatterRearrange operator, or left by rank."""

    plugin = "plugin"
    elide = "elide"


def onnx(
    checkpoint: Annotated[
        Path,
        typer.Argument(
            help="Checkpoint (.pth or .safetensors): ToFe, DynamicViT, EViT, DeiT, ViT or LV-ViT.", metavar="CKPT"
        ),
    ],
    file: Annotated[Path, typer.Option("--file", "-o", help="ONNX file to write.")] = Path("model.onnx"),
    output: Annotated[
        str,
        typer.Option(help="logits, features (patch tokens in spatial order; also: tokens), or both.", metavar="WHAT"),
    ] = "logits",
    keep: Annotated[
        str | None,
        typer.Option(
            help="Keep counts by hand, one a stage (96,49,27), or ratios (0.49,0.25,0.14).", metavar="K1,K2,K3"
        ),
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
        int | None, typer.Option(help="At most so many of those images; default: 1000.", min=1, max=MOST_IMAGES)
    ] = None,
    rearrange: Annotated[
        Rearrange | None,
        typer.Option(
            help="plugin: spatial order after each stage; elide: left by rank, with features put back at the end. "
            "Default: plugin for logits, elide with features."
        ),
    ] = None,
    img_size: hints.ImageSize = None,
    taps: Annotated[bool, typer.Option("--taps", help="Add per-stage scores, perm and tokens as outputs.")] = False,
    data: Annotated[
        str | None, typer.Option(help="Images of the parity check: 'digits', 'photos' or a folder.")
    ] = None,
    keep_rate: hints.KeepRate = None,
    selector: hints.Selector = None,
    fuse_token: hints.FuseToken = None,
    stages: hints.Stages = None,
    backbone: hints.Backbone = None,
    backbone_args: hints.BackboneArgs = "",
) -> None:
    """Export a checkpoint to ONNX, checked, run at two batch sizes and compared with PyTorch."""
    from tofe_export.artifacts.file_kinds import Kind
    from tofe_export.artifacts.names import expanded
    from tofe_export.artifacts.outputs import Output, require_outputs
    from tofe_export.data.sources import require_unambiguous
    from tofe_export.workflows.export_onnx import OnnxOptions, export_onnx
    from tofe_export.workflows.keep_counts import KeepOptions

    for spec in (data, keep_from):
        require_unambiguous(spec)
    counts, ratios = (None, None) if keep is None else counts_or_ratios(keep, "--keep")
    options = OnnxOptions(
        keep=KeepOptions(counts, keep_from, keep_quantile, keep_samples, ratios),
        rearrange=None if rearrange is None else rearrange is Rearrange.plugin,
        outputs=names(output, _OUTPUTS, "--output"),
        taps=taps,
        hints=hints.hints_from(backbone, backbone_args, selector, fuse_token, stages, keep_rate, img_size),
        data=data,
    )
    require_outputs([Output(file, Kind.ONNX)], [checkpoint, expanded(keep_from) if keep_from else None])
    with console.progress() as report:
        result = export_onnx(checkpoint, file, options, report)
    console.warn([f"Note: {note}" for note in result.notes])
    _say(result, checkpoint)
    show_images(result.images)


def _say(result: OnnxResult, checkpoint: Path) -> None:
    found, manifest = result.comparison, result.manifest
    data = manifest.get("external_data")
    weights = "" if data is None else f", with its weights in {data['file']} beside it"
    console.say(f"Wrote {result.path} and {result.path}.json{weights}")
    console.say(f"  network      {manifest['config']['backbone']}: {manifest['recognised']}")
    if result.keep:
        counts = ",".join(map(str, result.keep))
        console.say(f"  keep counts  {counts} of {manifest['tokens']} tokens ({manifest['options']['keep_source']})")
    console.say(
        f"  cost         {manifest['gmacs']:.3f} GMACs, {manifest['gmacs'] / manifest['dense_gmacs']:.1%} of dense"
    )
    differences = []
    if found.logits.samples:
        same = f"top-1 agreement {found.logits.top1_agreement:.0%}"
        differences += [f"logits max_abs {found.logits.max_abs:.1e}", same]
    if found.features.samples:
        differences.append(f"features max_abs {found.features.max_abs:.1e}")
    console.say(f"  parity       {found.samples} images: {', '.join(differences)}")
    console.say(f"Next:  {command('verify', result.path, '--against', checkpoint)}")
