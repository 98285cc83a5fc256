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
from tofe_export.documents.images import ImagesRead
from tofe_export.errors import InputError
from tofe_export.files.names import CHECKPOINT, METRICS, STATE, expanded
from tofe_export.model.config import ToFeConfig
from tofe_export.progress import Note, Progress, silent, unheard
from tofe_export.training.loop import Watch, unwatched
from tofe_export.training.settings import TrainSettings
from tofe_export.training.trainer import train as run


@dataclass(frozen=True)
class TrainedRun:
    """A finished run.

    Attributes:
        path: of its checkpoint.
        images: which images were read.
    """

    path: Path
    images: ImagesRead

    def load(self) -> Checkpoint:
        """The checkpoint."""
        return load(self.path)


def train(
    data: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    backbone: str = "deit_small_patch16_224",
    backbone_args: Mapping[str, object] | None = None,
    stages: Sequence[int] = (),
    selector: str = "mlp",
    approximator: str = "bottleneck",
    dense_output: bool = False,
    pretrained: bool = False,
    init: str | os.PathLike[str] | None = None,
    budget: float = TrainSettings.budget,
    epochs: int = TrainSettings.epochs,
    dense_epochs: int | None = None,
    batch_size: int = TrainSettings.batch_size,
    lr: float = TrainSettings.lr,
    backbone_lr_scale: float = TrainSettings.backbone_lr_scale,
    dense_lr: float | None = None,
    weight_decay: float = TrainSettings.weight_decay,
    seed: int = TrainSettings.seed,
    workers: int = TrainSettings.workers,
    device: str = TrainSettings.device,
    resume: bool = False,
    progress: Progress = silent,
    watch: Watch = unwatched,
    note: Note = unheard,
) -> TrainedRun:
    """Trains a ToFe network; its checkpoint is `path`/ckpt.pth.

    Args:
        data: "digits", or a folder with one subfolder of images per class.
        path: folder of the run, created when missing.
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
        dense_epochs: of the dense backbone, without `pretrained` or `init`; None for 30.
        batch_size: images per step.
        lr: peak learning rate of selectors and approximators.
        backbone_lr_scale: the backbone's share of it.
        dense_lr: peak learning rate of the dense phase; None for 0.001.
        weight_decay: of matrices.
        seed: of everything random.
        workers: processes that decode images.
        device: "auto", "cpu", "cuda" or "cuda:N".
        resume: continue the run in `path` exactly where it stopped.
        progress: called after each step.
        watch: called after each step with the means of the epoch so far.
        note: called with what was chosen or left out of the file in `init`, a sentence each.

    Raises:
        InputError: arguments, data or weights that cannot be used; a run already in `path`; a loss that is not finite.
        MissingError: no such device, no network for pretrained weights, not enough memory.
    """
    if pretrained and init is not None:
        raise InputError("`pretrained` and `init` were both given.", "Give one of them.", code="two-starts")
    if (pretrained or init is not None) and (dense_epochs or dense_lr is not None):
        raise InputError(
            "With `pretrained` or `init` there is no dense phase for `dense_epochs` and `dense_lr`.",
            "Omit `dense_epochs` and `dense_lr`.",
            code="no-dense-phase",
        )
    settings = TrainSettings(
        data=os.fspath(data),
        epochs=epochs,
        dense_epochs=TrainSettings.dense_epochs if dense_epochs is None else dense_epochs,
        batch_size=batch_size,
        lr=lr,
        backbone_lr_scale=backbone_lr_scale,
        dense_lr=TrainSettings.dense_lr if dense_lr is None else dense_lr,
        weight_decay=weight_decay,
        budget=budget,
        seed=seed,
        workers=workers,
        device=device,
    )
    config = ToFeConfig(backbone, dict(backbone_args or {}), tuple(stages), selector, approximator, dense_output)
    folder, weights = expanded(os.fspath(path)), None if init is None else expanded(os.fspath(init))
    require_outputs(run_outputs(folder), [weights])
    log = ImageLog()
    checkpoint = run(settings, config, folder, pretrained, weights, resume, progress, watch, log, note)
    return TrainedRun(checkpoint, log.document())


def run_outputs(folder: Path) -> list[Output]:
    """The files that training writes into `folder`."""
    kinds = {CHECKPOINT: Kind.CHECKPOINT, STATE: Kind.CHECKPOINT, METRICS: Kind.METRICS}
    return [Output(folder / name, kind) for name, kind in kinds.items()]
