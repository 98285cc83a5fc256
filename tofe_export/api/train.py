"""`train`: a ToFe checkpoint, from images and a backbone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tofe_export.artifacts.file_kinds import Kind
from tofe_export.artifacts.outputs import Output, require_outputs
from tofe_export.checkpoints.checkpoint import Checkpoint, load
from tofe_export.data.image_log import ImageLog
from tofe_export.data.sources import DIGITS
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.toml import own_file
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import InputError
from tofe_export.files.names import CHECKPOINT, METRICS, STATE, STEPS, expanded
from tofe_export.progress import Note, Progress, silent, unheard
from tofe_export.training.loop import Evaluation, Watch, unwatched
from tofe_export.training.recipe import read_recipe
from tofe_export.training.run import RunOptions
from tofe_export.training.setup import choose_device
from tofe_export.training.trackers import require_trackers
from tofe_export.training.trainer import train as run

FINETUNE = "finetune"  # the digits have a recipe of their own name


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        path: of its checkpoint.
        images: which images were read.
        evaluation: of the threshold path on held-out images: accuracy, kept shares, cost.
        dense_accuracy: of the dense backbone that taught it, on the same images.
        budget: the target of the cost, as a share of the dense backbone's MACs.
        notes: what one must know of it: a missed budget, a stage that decides nothing.
    """

    path: Path
    images: ImagesRead
    evaluation: Evaluation
    dense_accuracy: float
    budget: float
    notes: tuple[str, ...]

    def load(self) -> Checkpoint:
        """The checkpoint."""
        return load(self.path)


def train(
    data: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    recipe: TrainingRecipe | str | os.PathLike[str] | None = None,
    backbone: str | None = None,
    backbone_args: Mapping[str, object] | None = None,
    stages: Sequence[int] | None = None,
    selector: str | None = None,
    approximator: str | None = None,
    dense_output: bool | None = None,
    pretrained: bool = False,
    init: str | os.PathLike[str] | None = None,
    budget: float | None = None,
    epochs: int | None = None,
    dense_epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    backbone_lr_scale: float | None = None,
    dense_lr: float | None = None,
    weight_decay: float | None = None,
    seed: int | None = None,
    changes: Mapping[str, object] | None = None,
    workers: int = RunOptions.workers,
    device: str = RunOptions.device,
    save_minutes: float = RunOptions.save_minutes,
    log_to: Sequence[str] = (),
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch = unwatched,
    note: Note = unheard,
) -> TrainedRun:
    """Trains a ToFe network; its checkpoint is `path`/ckpt.pth.

    Started by torchrun, every process calls it alike, and they train together.

    Args:
        data: "digits", or images with labels: class folders, tar shards, a saved Hugging Face dataset.
        path: folder of the run, created when missing.
        recipe: a TOML file, the name of a shipped recipe, or one that has been read; None is "finetune", and "digits"
            for the digits. What follows replaces values of the recipe where it is not None.
        backbone: timm name of a ViT (vit_*, deit_*, eva02_*, beit_*), or lvvit_t, _s, _m, _l.
        backbone_args: keyword arguments of `timm.create_model`.
        stages: first block of each stage; empty takes quarters of the depth.
        selector: "mlp", "linear" or "attention".
        approximator: "bottleneck", "identity", "block" or "discard".
        dense_output: estimate the last stage's frozen tokens too, for an export with features.
        pretrained: start from timm's weights (downloads).
        init: start from backbone weights in this file, or under this name on the Hugging Face hub.
        budget: MACs as a share of the dense backbone's, 0 < budget < 1.
        epochs: of ToFe fine-tuning.
        dense_epochs: of the dense backbone, where it has no weights or its classifier is not of these classes.
        batch_size: images per step, over all processes.
        lr: peak learning rate of approximators; the recipe gives those of selectors and backbone as shares of it.
        backbone_lr_scale: the backbone's share.
        dense_lr: peak learning rate of the dense phase.
        weight_decay: of matrices.
        seed: of everything random.
        changes: further values by their key in the recipe, such as {"run.precision": "bf16"}.
        workers: processes that decode images, for each process that trains.
        device: "auto", "cpu", "cuda" or "cuda:N".
        save_minutes: the state is saved each time they have passed within an epoch, and at its end.
        log_to: besides the log files: "tensorboard", "wandb", "mlflow".
        resume: continue the run in `path` exactly where its saved state ends; more `epochs` are allowed.
        progress: called after each step.
        watch: called after each step with the means of the epoch so far.
        note: called with what was chosen or left out of the file in `init`, and of the result, a sentence each.

    Raises:
        InputError: arguments, data or weights that cannot be used; a run already in `path`; a budget that cannot be
            met; a loss that is not finite.
        MissingError: no such device or package, no network for pretrained weights, not enough memory; another process
            of the run has ended.
        StoppedError: Ctrl-C or SIGTERM; the state is saved.
    """
    if pretrained and init is not None:
        raise InputError("`pretrained` and `init` were both given.", "Give one of them.", code="two-starts")
    # Numbers first, then names, then what lies on the disk.
    name = os.fspath(data)
    given = recipe if isinstance(recipe, TrainingRecipe) or recipe is None else os.fspath(recipe)
    arguments = {
        "backbone": backbone,
        "backbone_args": None if backbone_args is None else dict(backbone_args),
        "stages": None if stages is None else tuple(stages),
        "selector": selector,
        "approximator": approximator,
        "dense_output": dense_output,
        "budget": budget,
        "epochs": epochs,
        "dense_epochs": dense_epochs,
        "batch_size": batch_size,
        "lr": lr,
        "backbone_lr_scale": backbone_lr_scale,
        "dense_lr": dense_lr,
        "weight_decay": weight_decay,
        "seed": seed,
    }
    weights = None if init is None else expanded(os.fspath(init))
    options = RunOptions(name, pretrained, weights, workers, device, save_minutes, tuple(dict.fromkeys(log_to)))
    settings = read_recipe(given or (DIGITS if name == DIGITS else FINETUNE), arguments, changes)
    require_trackers(options.trackers)
    choose_device(options.device)
    folder, file = expanded(os.fspath(path)), own_file(given) if isinstance(given, str) else None
    require_outputs(run_outputs(folder), [weights, file])
    log = ImageLog()
    outcome = run(settings, options, folder, resume, progress, watch, log, note)
    for sentence in outcome.notes:
        note(sentence)
    return TrainedRun(
        outcome.path, log.document(), outcome.evaluation, outcome.dense_accuracy, outcome.budget, outcome.notes
    )


def run_outputs(folder: Path) -> list[Output]:
    """The files that training writes into `folder`."""
    kinds = {CHECKPOINT: Kind.CHECKPOINT, STATE: Kind.CHECKPOINT, METRICS: Kind.METRICS, STEPS: Kind.METRICS}
    return [Output(folder / name, kind) for name, kind in kinds.items()]
