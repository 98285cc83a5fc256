"""`load`: a checkpoint, this program's or another method's, as a network that can be exported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from tofe_export.checkpoints.checkpoint import Checkpoint, load_like
from tofe_export.checkpoints.checkpoint import load as load_file
from tofe_export.checkpoints.foreign import Hints
from tofe_export.files.names import expanded
from tofe_export.model.config import ToFeConfig

Source = Checkpoint | str | os.PathLike[str]
"""A checkpoint: loaded, or its file, or the folder of its training run."""


def load(
    path: str | os.PathLike[str],
    *,
    backbone: str | None = None,
    backbone_args: Mapping[str, object] | None = None,
    selector: str | None = None,
    fuse_token: bool | None = None,
    stages: Sequence[int] = (),
    keep_rate: float | None = None,
    image_size: int | tuple[int, int] | None = None,
) -> Checkpoint:
    """The checkpoint in `path`, in evaluation mode.

    A file of this program says itself what it is, and takes no argument but `image_size`. The others say what the file
    of another method (DynamicViT, EViT, DeiT, ViT, LV-ViT) does not say.

    Args:
        path: the file (.pth or .safetensors), or the folder of a training run.
        backbone: timm model name, where the shapes of the weights do not determine it.
        backbone_args: keyword arguments of `timm.create_model`.
        selector: "cls-attention" selects as EViT does; None takes "mlp" where DynamicViT's predictors are, else "none".
        fuse_token: EViT adds up the tokens that it drops into one; None as the file says, else True.
        stages: first block of each stage; empty takes quarters of the depth.
        keep_rate: share of the tokens that DynamicViT or EViT keeps at each stage, 0 < keep_rate <= 1.
        image_size: height and width in pixels that the network takes, or one number for both; None leaves its own.

    Raises:
        InputError: no such file, not a checkpoint, a network that is not recognized, or arguments that do not fit.
    """
    hints = Hints(
        backbone=backbone,
        backbone_args=dict(backbone_args or {}),
        selector=selector,
        fuse_token=fuse_token,
        stages=tuple(stages),
        keep_rate=keep_rate,
        image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
    )
    return load_file(expanded(os.fspath(path)), hints)


def opened(source: Source, config: ToFeConfig | None = None) -> Checkpoint:
    """`source` itself where it is loaded already, else loaded.

    Args:
        source: see `Source`.
        config: the network that was made from it before; see `load_like`.

    Raises:
        InputError: see `load`.
    """
    if config is not None:
        return load_like(source if isinstance(source, Checkpoint) else expanded(os.fspath(source)), config)
    return source if isinstance(source, Checkpoint) else load(source)
