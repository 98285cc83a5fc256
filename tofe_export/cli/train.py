"""tofe-export train"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from tofe_export.cli import console
from tofe_export.cli.parse import comma_separated, keyword_arguments, recipe_changes, whole_numbers
from tofe_export.cli.processes import is_first
from tofe_export.errors import StoppedError
from tofe_export.files.commands import command
from tofe_export.files.names import STATE, expanded
from tofe_export.progress import Progress, silent, unheard

if TYPE_CHECKING:
    from tofe_export.api.train import TrainedRun
    from tofe_export.training.loop import Watch


def train(
    data: Annotated[str, Option(help="'digits', or a folder: subfolders of images, shards, or a dataset.")],
    output: Annotated[Path, Option("--output", "-o", help="Folder of the run; gets ckpt.pth.", metavar="RUN")],
    recipe: Annotated[
        str | None,
        Option(help="finetune, small, cifar10, digits, ..., or a .toml file; other options replace its values."),
    ] = None,
    set_: Annotated[
        list[str] | None, Option("--set", help="A value of the recipe; may be repeated.", metavar="run.precision=bf16")
    ] = None,
    backbone: Annotated[
        str | None, Option(help="timm ViT (vit_*, deit_*, eva02_*, beit_*) or lvvit_t, _s, _m, _l.", metavar="NAME")
    ] = None,
    backbone_args: Annotated[
        str | None, Option(help="Arguments of timm.create_model.", metavar="img_size=64,patch_size=8")
    ] = None,
    stages: Annotated[str | None, Option(help="First block of each stage; default: quarters.", metavar="3,6,9")] = None,
    selector: Annotated[str | None, Option(help="mlp, linear or attention.")] = None,
    approximator: Annotated[str | None, Option(help="bottleneck, identity, block or discard.")] = None,
    features: Annotated[
        bool, Option("--features", help="Estimate the last stage's frozen tokens too, for onnx --outputs features.")
    ] = False,
    pretrained: Annotated[bool, Option("--pretrained", help="Start from timm's weights (downloads).")] = False,
    init: Annotated[
        Path | None, Option(help="Start from backbone weights in a file, or hf-hub:owner/name.", metavar="FILE")
    ] = None,
    budget: Annotated[float | None, Option(help="MACs as a share of the dense backbone's.")] = None,
    epochs: Annotated[int | None, Option(help="Epochs of ToFe fine-tuning.")] = None,
    dense_epochs: Annotated[
        int | None, Option(help="Epochs of the dense backbone, where it needs weights or a classifier.")
    ] = None,
    batch_size: Annotated[int | None, Option(help="Images per step, over all processes.")] = None,
    lr: Annotated[float | None, Option(help="Peak learning rate of approximators.")] = None,
    backbone_lr_scale: Annotated[float | None, Option(help="The backbone's share of it.")] = None,
    dense_lr: Annotated[float | None, Option(help="Peak learning rate of the dense phase.")] = None,
    weight_decay: Annotated[float | None, Option(help="Of matrices.")] = None,
    seed: Annotated[int | None, Option(help="Of everything random.")] = None,
    workers: Annotated[int, Option(help="Processes that decode images.")] = 0,
    device: Annotated[str, Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    save_minutes: Annotated[float, Option(help="Minutes between two saved states of an epoch.")] = 10.0,
    log_to: Annotated[
        str | None, Option(help="Besides the log files: tensorboard, wandb, mlflow.", metavar="NAME,...")
    ] = None,
    resume: Annotated[bool, Option("--resume", help="Continue the run in RUN exactly where it stopped.")] = False,
) -> None:
    """Train a ToFe model; the result is RUN/ckpt.pth. On several GPUs: torchrun ... -m tofe_export train ..."""
    from tofe_export.api.train import train as run
    from tofe_export.data.sources import require_unambiguous

    first = is_first()
    require_unambiguous(data)
    with _ending(output), console.training_progress() if first else _in_silence() as (progress, watch):
        trained = run(
            data,
            output,
            recipe=recipe,
            backbone=backbone,
            backbone_args=None if backbone_args is None else keyword_arguments(backbone_args),
            stages=whole_numbers(stages, "--stages") if stages else None,
            selector=selector,
            approximator=approximator,
            dense_output=features or None,
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
            changes=recipe_changes(set_),
            workers=workers,
            device=device,
            save_minutes=save_minutes,
            log_to=comma_separated(log_to, "--log-to") if log_to else (),
            resume=resume,
            progress=progress,
            watch=watch,
            note=(lambda sentence: console.notes([sentence])) if first else unheard,
        )
    if not first:
        return
    console.show_images(trained.images)
    _show(trained)
    console.say(f"Wrote {trained.path}")
    console.say(f"Next:  {command('onnx', trained.path)}")


@contextlib.contextmanager
def _in_silence() -> Iterator[tuple[Progress, Watch]]:
    """For processes beside the first, which would draw their bars over its own."""
    from tofe_export.training.loop import unwatched

    yield silent, unwatched


@contextlib.contextmanager
def _ending(folder: Path) -> Iterator[None]:
    """Says what is left of a run that a signal ends at once: before its first step, or by a second Ctrl-C."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as error:
        number = signal.SIGINT if isinstance(error, KeyboardInterrupt) else signal.SIGTERM
        if isinstance(error, SystemExit) and error.code != 128 + number:
            raise
        if not (expanded(str(folder)) / STATE).is_file():
            raise StoppedError(
                "Stopped before any state was saved.", number=number, code="stopped-before-saving", path=folder
            ) from error
        message = f"Stopped at once; what was saved last is in {folder}."
        raise StoppedError(message, number=number, code="stopped", path=folder) from error


def _show(trained: TrainedRun) -> None:
    found = trained.evaluation
    console.say(
        f"Held-out accuracy {found.val_accuracy:.1%} (dense backbone {trained.dense_accuracy:.1%}) at "
        f"{found.macs_ratio:.1%} of its MACs (budget {trained.budget:.1%})"
    )
    kept = [f"{mean:.0%} ± {spread:.0%}" for mean, spread in zip(found.keep_mean, found.keep_std, strict=True)]
    console.say(f"Tokens kept per stage, mean and spread over images: {', '.join(kept)}")
