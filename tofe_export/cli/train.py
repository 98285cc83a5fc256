"""tofe-export train"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Option

from tofe_export.cli import console
from tofe_export.cli.parse import keyword_arguments, whole_numbers
from tofe_export.files.commands import command


def train(
    data: Annotated[str, Option(help="'digits', or a folder: subfolders of images, shards, or a dataset.")],
    output: Annotated[Path, Option("--output", "-o", help="Folder of the run; gets ckpt.pth.", metavar="RUN")],
    backbone: Annotated[
        str, Option(help="timm ViT (vit_*, deit_*, eva02_*, beit_*) or lvvit_t, _s, _m, _l.", metavar="NAME")
    ] = "deit_small_patch16_224",
    backbone_args: Annotated[
        str, Option(help="Arguments of timm.create_model.", metavar="img_size=64,patch_size=8")
    ] = "",
    stages: Annotated[str | None, Option(help="First block of each stage; default: quarters.", metavar="3,6,9")] = None,
    selector: Annotated[str, Option(help="mlp, linear or attention.")] = "mlp",
    approximator: Annotated[str, Option(help="bottleneck, identity, block or discard.")] = "bottleneck",
    features: Annotated[
        bool, Option("--features", help="Estimate the last stage's frozen tokens too, for onnx --outputs features.")
    ] = False,
    pretrained: Annotated[bool, Option("--pretrained", help="Start from timm's weights (downloads).")] = False,
    init: Annotated[
        Path | None, Option(help="Start from backbone weights in a file, or hf-hub:owner/name.", metavar="FILE")
    ] = None,
    budget: Annotated[float, Option(help="MACs as a share of the dense backbone's.")] = 0.5,
    epochs: Annotated[int, Option(help="Epochs of ToFe fine-tuning.")] = 30,
    dense_epochs: Annotated[
        int | None, Option(help="Epochs of the dense backbone, without --pretrained or --init; default: 30.")
    ] = None,
    batch_size: Annotated[int, Option(help="Images per step.")] = 128,
    lr: Annotated[float, Option(help="Peak learning rate of selectors and approximators.")] = 1e-3,
    backbone_lr_scale: Annotated[float, Option(help="The backbone's share of it.")] = 0.05,
    dense_lr: Annotated[float | None, Option(help="Peak learning rate of the dense phase; default: 0.001.")] = None,
    weight_decay: Annotated[float, Option(help="Of matrices.")] = 0.05,
    seed: Annotated[int, Option(help="Of everything random.")] = 0,
    workers: Annotated[int, Option(help="Processes that decode images.")] = 0,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    resume: Annotated[bool, Option("--resume", help="Continue the run in RUN exactly where it stopped.")] = False,
) -> None:
    """Train a ToFe model; the result is RUN/ckpt.pth."""
    from tofe_export.api.train import train as run
    from tofe_export.data.sources import require_unambiguous

    require_unambiguous(data)
    with console.training_progress() as (progress, watch):
        trained = run(
            data,
            output,
            backbone=backbone,
            backbone_args=keyword_arguments(backbone_args),
            stages=whole_numbers(stages, "--stages") if stages else (),
            selector=selector,
            approximator=approximator,
            dense_output=features,
            pretrained=pretrained,
            init=init,
            budget=budget,
            epochs=epochs,
            dense_epochs=dense_epochs,
            batch_size=batch_size,
            lr=lr,
            backbone_lr_scale=backbone_lr_scale,
            dense_lr=dense_lr,
            weight_decay=weight_decay,
            seed=seed,
            workers=workers,
            device=device,
            resume=resume,
            progress=progress,
            watch=watch,
            note=lambda sentence: console.notes([sentence]),
        )
    console.show_images(trained.images)
    console.say(f"Wrote {trained.path}")
    console.say(f"Next:  {command('onnx', trained.path)}")
