"""Models as a caller may name them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.errors import InputError
from tofe_export.files.names import WEIGHTS

AnyArtifact = Artifact | Path | str
AnyModel = Artifact | Checkpoint | Path | str
DEPLOYED = (".onnx", ".engine")
"""Endings of artifacts; a file with another one is a checkpoint."""


def listed(models: AnyModel | Sequence[AnyModel]) -> list[Artifact | Checkpoint | Path]:
    """One model or several as a list; a text becomes a path."""
    several = [models] if isinstance(models, (Artifact, Checkpoint, Path, str)) else models
    return [Path(model) if isinstance(model, str) else model for model in several]


def path_of(model: AnyModel) -> Path:
    """The file of a model; "." for a checkpoint that was never in one."""
    if isinstance(model, (Path, str)):
        return Path(model)
    return Path() if model.path is None else model.path


def open_onnx(model: AnyArtifact) -> Artifact:
    """The artifact of an ONNX file.

    Raises:
        InputError: it is not one; and see `read_manifest`.
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
    return open_artifact(model)


def require_onnx_name(target: Path) -> None:
    """Raises InputError unless the name of a file to write ends in .onnx."""
    if target.suffix != ".onnx":
        raise InputError(
            f"{target} does not end in .onnx.", "Name a file that does.", code="not-onnx-name", path=target
        )
