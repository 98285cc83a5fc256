"""tofe-export onnx"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from typer import Argument, BadParameter, Option

from tofe_export.bounds import MOST_IMAGES
from tofe_export.cli import console, hints
from tofe_export.cli.parse import counts_or_ratios, output_names
from tofe_export.files.commands import command

if TYPE_CHECKING:
    from tofe_export.api.export import ExportedArtifact


def onnx(
    checkpoint: Annotated[
        Path,
        Argument(
            help="Checkpoint (.pth or .safetensors), or hf-hub:owner/name: ToFe, DynamicViT, EViT, DeiT, ViT, LV-ViT.",
            metavar="CKPT",
        ),
    ],
    output: Annotated[Path, Option("--output", "-o", help="ONNX file to write.", metavar="FILE")] = Path("model.onnx"),
    input: Annotated[
        Literal["tensor", "image"],
        Option(help="tensor: normalized float32 images; image: uint8 [B,H,W,3] in RGB, of any size, prepared inside."),
    ] = "tensor",
    outputs: Annotated[
        str,
        Option(
            help="logits, features (patch tokens in spatial order; also: tokens), or both; classes: the most probable "
            "and their probabilities, in place of logits.",
            metavar="WHAT",
        ),
    ] = "logits",
    top: Annotated[int | None, Option(help="How many classes; default: 5.", min=1, metavar="N")] = None,
    keep: Annotated[
        str | None,
        Option(help="Keep counts, one per stage (96,49,27), or ratios (0.49,0.25,0.14).", metavar="K1,K2,K3"),
    ] = None,
    keep_from: Annotated[
        str | None,
        Option(
            help="Take keep counts from images: 'digits', 'photos', a folder, or a recipe (.toml); or from tune.json.",
            metavar="DATA",
        ),
    ] = None,
    keep_quantile: Annotated[
        float | None, Option(help="Which quantile of their counts, 0 to 1; default: 0.5.", metavar="Q")
    ] = None,
    keep_samples: Annotated[
        int | None, Option(help="At most this many of those images; default: 1000.", min=1, max=MOST_IMAGES)
    ] = None,
    rearrange: Annotated[
        Literal["plugin", "elide"] | None,
        Option(
            help="plugin: spatial order after each stage; elide: order of rank, with features put back at the end. "
            "Default: plugin for logits, elide with features."
        ),
    ] = None,
    img_size: hints.ImageSize = None,
    taps: Annotated[bool, Option("--taps", help="Add per-stage scores, perm and tokens as outputs.")] = False,
    inline: Annotated[
        bool, Option("--inline", help="Standard operators alone, for readers without model-local functions.")
    ] = False,
    data: Annotated[str | None, Option(help="Images of the parity check: 'digits', 'photos' or a folder.")] = None,
    keep_rate: hints.KeepRate = None,
    selector: hints.Selector = None,
    fuse_token: hints.FuseToken = None,
    stages: hints.Stages = None,
    backbone: hints.Backbone = None,
    backbone_args: hints.BackboneArgs = "",
    weights: hints.Weights = "auto",
    strict: Annotated[
        bool, Option("--strict", help="Refuse a checkpoint of which something had to be assumed.")
    ] = False,
) -> None:
    """Export a checkpoint to ONNX, checked, run at two batch sizes and compared with PyTorch."""
    from tofe_export.api.export import export
    from tofe_export.checkpoints.checkpoint import load
    from tofe_export.data.sources import require_unambiguous

    for spec in (data, keep_from):
        require_unambiguous(spec)
    if keep_rate is not None and (keep or keep_from):
        raise BadParameter("--keep-rate says how many tokens to keep, and so does --keep or --keep-from.")
    counts = None if keep is None else counts_or_ratios(keep)
    chosen = output_names(outputs)
    if top is not None and "classes" not in chosen:
        raise BadParameter("--top is for --outputs classes.")
    described = hints.hints_from(backbone, backbone_args, selector, fuse_token, stages, keep_rate, img_size, weights)
    with console.progress() as progress:
        artifact = export(
            load(checkpoint, described),
            output,
            keep=counts,
            keep_from=keep_from,
            keep_quantile=keep_quantile,
            keep_samples=keep_samples,
            rearrange=rearrange,
            input=input,
            outputs=chosen,
            top=top or 5,
            taps=taps,
            inline=inline,
            strict=strict,
            data=data,
            progress=progress,
        )
    console.notes(artifact.notes)
    _show(artifact, checkpoint)
    console.show_images(artifact.images)
    console.assumptions(artifact.manifest.assumed)


def _show(artifact: ExportedArtifact, checkpoint: Path) -> None:
    manifest, parity = artifact.manifest, artifact.parity
    data = manifest.external_data
    weights = "" if data is None else f", with its weights in {data.file} beside it"
    console.say(f"Wrote {artifact.path} and {artifact.path}.json{weights}")
    console.say(f"  network      {manifest.config.backbone}: {manifest.recognised}")
    if manifest.keep:
        counts = ",".join(map(str, manifest.keep))
        console.say(f"  keep counts  {counts} of {manifest.tokens} tokens ({manifest.options.keep_source})")
    share = manifest.gmacs / manifest.dense_gmacs
    console.say(f"  cost         {manifest.gmacs:.3f} GMACs, {share:.1%} of dense")
    differences = []
    if parity.logits is not None:
        differences.append(f"logits max_abs {parity.logits.max_abs:.1e}")
        differences.append(f"top-1 agreement {parity.top1_agreement:.0%}")
    if parity.features is not None:
        differences.append(f"features max_abs {parity.features.max_abs:.1e}")
    console.say(f"  parity       {parity.samples} images: {', '.join(differences)}")
    console.show_ends(artifact.ends, manifest.options)
    console.say(f"Next:  {command('verify', artifact.path, '--against', checkpoint)}")
