"""`load`: a checkpoint, this program's or another method's, as a network that can be exported; and other models."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.checkpoints.checkpoint import load as load_file
from tofe_export.checkpoints.foreign import Hints
from tofe_export.checkpoints.unwrap import Choice
from tofe_export.documents.manifest import OnnxManifest, target_name
from tofe_export.errors import InputError
from tofe_export.files.names import DEPLOYED, WEIGHTS, expanded

AnyArtifact = Artifact | Path | str
AnyModel = Artifact | Checkpoint | Path | str
Source = Checkpoint | str | os.PathLike[str]
"""A checkpoint: loaded, or its file, or the folder of its training run, or a name on the Hugging Face hub."""


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
    weights: Choice = "auto",
) -> Checkpoint:
    """The checkpoint in `path`, in evaluation mode.

    A file of this program says itself what it is, and takes no argument but `image_size` and `weights`. The others say
    what the file of another method (DynamicViT, EViT, DeiT, ViT, LV-ViT) does not say, and go before what it says: in
    its own `arch`, `args` or `hyper_parameters`, or in the config.json of its hub folder. What is left to assume stands
    in `Checkpoint.assumed`.

    Args:
        path: the file (.pth or .safetensors), the folder of a training run, or `hf-hub:owner/name` or `timm/NAME` on
            the Hugging Face hub, with `@REVISION` where another than the newest is wanted.
        backbone: timm model name; None takes what the file says, else what the shapes of the weights show.
        backbone_args: keyword arguments of `timm.create_model`.
        selector: "cls-attention" selects as EViT does; None takes "mlp" where DynamicViT's predictors are, else "none".
        fuse_token: EViT adds up the tokens that it drops into one; None as the file says, else True.
        stages: first block of each stage; empty takes quarters of the depth.
        keep_rate: share of the tokens that DynamicViT or EViT keeps at each stage, 0 < keep_rate <= 1.
        image_size: height and width in pixels that the network takes, or one number for both; None leaves its own.
        weights: "model" or "ema", where the file holds two copies of the weights; "auto" takes the one that the code
            which wrote it evaluates, and a note says which.

    Raises:
        InputError: no such file, not a checkpoint, a network that is not recognized, or arguments that do not fit.
        MissingError: a name on the hub without a network, which the cache does not hold.
    """
    hints = Hints(
        backbone=backbone,
        backbone_args=dict(backbone_args or {}),
        selector=selector,
        fuse_token=fuse_token,
        stages=tuple(stages),
        keep_rate=keep_rate,
        image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
        weights=weights,
    )
    return load_file(expanded(os.fspath(path)), hints)


def open_model(model: AnyModel, then: str) -> Artifact | Checkpoint:
    """A model by the ending of its name: an artifact, or anything else as a checkpoint that says itself what it is.

    `then` ends the next step where it does not: "export it, and {then} that".
    """
    if isinstance(model, (Artifact, Checkpoint)):
        return model
    path = expanded(os.fspath(model))
    if path.suffix in DEPLOYED:
        return open_artifact(path)
    with export_first(then):
        return load(path)


@contextlib.contextmanager
def export_first(then: str) -> Iterator[None]:
    """Arguments that an InputError asks for are for loading and exporting; says so. `then`: see `open_model`."""
    try:
        yield
    except InputError as error:
        if "`" not in error.next_step:
            raise
        step = f"{error.next_step} Only loading and exporting take these arguments: export it, and {then} that."
        raise InputError(error.message, step, code=error.code, **error.details) from error


def listed(models: AnyModel | Sequence[AnyModel]) -> list[Artifact | Checkpoint | Path]:
    """One model or several as a list; a text becomes a path. Raises InputError where there is none."""
    several = [models] if isinstance(models, (Artifact, Checkpoint, Path, str)) else models
    if not several:
        raise InputError("No model was given.", "Name at least one in `models`.", code="no-model")
    return [Path(model) if isinstance(model, str) else model for model in several]


def path_of(model: AnyModel) -> Path:
    """The file of a model; "." for a checkpoint that was never in one."""
    if isinstance(model, (Path, str)):
        return Path(model)
    return Path() if model.path is None else model.path


def open_onnx(model: AnyArtifact) -> Artifact:
    """The artifact of an ONNX file that other files are made of.

    Raises:
        InputError: it is not one, or was optimized for a runtime, which comes last; and see `read_manifest`.
    """
    path = path_of(model)
    if path.suffix in WEIGHTS:
        raise InputError(f"{path} is a checkpoint, not an ONNX file.", "Export it first.", code="not-onnx", path=path)
    if path.suffix != ".onnx":
        raise InputError(
            f"{path} is not an ONNX file.",
            "Name the file that was exported from a checkpoint.",
            code="onnx-expected",
            path=path,
        )
    artifact = open_artifact(model)
    manifest = artifact.manifest
    if not isinstance(manifest, OnnxManifest):
        return artifact
    require_no_ends(artifact)
    if manifest.options.target is None:
        return artifact
    if manifest.checkpoint is None:  # written out when it was exported
        raise InputError(
            f"{path} was exported for any reader, which is the last step.",
            "Export it again without `inline`, and start from that.",
            code="inlined-already",
            path=path,
        )
    raise InputError(
        f"{path} was optimized for {target_name(manifest.options.target)}, which is the last step.",
        f"Start from the file that it was made of: {manifest.source.file}.",
        code="optimized-already",
        path=path,
        source=path.with_name(manifest.source.file),
    )


def require_no_ends(artifact: Artifact) -> None:
    """Raises InputError for a file that prepares images or names classes itself."""
    if isinstance(artifact.manifest, OnnxManifest) and artifact.manifest.has_ends:
        raise InputError(
            f"{artifact.path} prepares images or names classes itself, which comes last.",
            "Take the file that it was made of, or export one with neither.",
            code="has-ends",
            path=artifact.path,
        )


def require_onnx_name(target: Path) -> None:
    """Raises InputError unless the name of a file to write ends in .onnx."""
    if target.suffix != ".onnx":
        raise InputError(
            f"{target} does not end in .onnx.", "Name a file that does.", code="not-onnx-name", path=target
        )
