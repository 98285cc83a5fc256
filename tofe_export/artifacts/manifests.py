"""The manifest beside every artifact (`model.onnx.json`): found, checked against the artifact's bytes, and typed.

A sidecar, never a prefix inside the artifact, so that every other tool can still read the artifact itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from tofe_export.documents.manifest import (
    AnyManifest,
    Manifest,
    again_of,
    external_data,
    parse_manifest,
)
from tofe_export.errors import InputError, brief
from tofe_export.files.names import WEIGHTS
from tofe_export.files.parts import folder_lock, sync_folder
from tofe_export.files.places import is_there, real_file
from tofe_export.files.reading import read_json, require_file, sha256

SCHEMA = Manifest.schema_name()


def manifest_path(artifact: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return artifact.with_name(artifact.name + ".json")


def pending_path(artifact: Path) -> Path:
    """Where a new manifest waits while the artifact is replaced: `.model.onnx.json.pending`."""
    described = real_file(manifest_path(artifact))
    return described.with_name(f".{described.name}.pending")


def has_manifest(artifact: Path) -> bool:
    """Whether there is a manifest beside `artifact`, be it one that a killed run left waiting."""
    with contextlib.suppress(InputError):  # under a name that is too long there is none
        return is_there(manifest_path(artifact)) or _waiting(artifact) is not None
    return False


def files_of(artifact: Path) -> list[Path]:
    """Every file that belongs to `artifact`, itself first; their content is not compared."""
    files = [artifact, manifest_path(artifact), pending_path(artifact)]
    for path in files[1:]:
        with contextlib.suppress(InputError, OSError):
            data = external_data(read_json(path))
            files += [] if data is None else [real_file(artifact).with_name(data.file)]
    return files


def read_manifest(artifact: Path) -> AnyManifest:
    """The manifest of `artifact`, after checking that it belongs to these very bytes, and its external data too.

    What a killed run had committed is finished first, where the folder can be written.

    Raises:
        InputError: no artifact, no manifest, another schema, a field that is missing or not of its kind (see
            `parse_manifest`), a hash that does not match, or external data that is missing or was changed.
    """
    require_file(artifact)
    try:
        return _read(artifact)
    except InputError:
        with folder_lock(artifact.parent):  # somebody may be between two renames of the set right now
            return _read(artifact, finish(artifact))


def read_manifest_alone(path: Path) -> AnyManifest:
    """The manifest in `path`, whose artifact is not there; raises as `read_manifest` does."""
    artifact = path.with_suffix("")
    return parse_manifest(_content(artifact), path, artifact.suffix)


def finish(artifact: Path) -> dict[str, Any] | None:
    """Gives a waiting manifest its place if it describes the artifact that is there; call it under `folder_lock`.

    Returns:
        What is in it; None where none waits, or it is of a run that was killed before it replaced the artifact.
    """
    content, pending = _waiting(artifact), pending_path(artifact)
    if content is not None:
        with contextlib.suppress(OSError):  # in a folder that cannot be written it serves where it lies
            pending.replace(real_file(manifest_path(artifact)))
            sync_folder(pending.parent)
    return content


def _read(artifact: Path, waiting: dict[str, Any] | None = None) -> AnyManifest:
    manifest = parse_manifest(waiting or _matching(artifact), manifest_path(artifact), artifact.suffix)
    _check_data(artifact, manifest)
    return manifest


def _waiting(artifact: Path) -> dict[str, Any] | None:
    pending = pending_path(artifact)
    if not os.path.isfile(pending) or not os.path.isfile(artifact):  # noqa: PTH113 - Path.is_file raises for long names
        return None
    try:
        content = read_json(pending)
    except InputError:  # cut off
        return None
    return content if content.get("schema") == SCHEMA and content.get("sha256") == sha256(artifact) else None


def _matching(artifact: Path) -> dict[str, Any]:
    path = manifest_path(artifact)
    if not is_there(path):
        if artifact.suffix in WEIGHTS:
            raise InputError(
                f"{artifact} is named as a checkpoint is; what is needed here is a deployed model.",
                "Export it first.",
                code="checkpoint-as-artifact",
                path=artifact,
            )
        raise InputError(
            f"{path} does not exist.",
            f"It travels beside {artifact.name}; copy it along. Or: {again_of(artifact.suffix)}",
            code="manifest-missing",
            path=artifact,
        )
    content = _content(artifact)
    if content.get("sha256") != sha256(artifact):
        message = f"{path.name} does not belong to {artifact}: the file was changed or replaced after it was written."
        raise InputError(message, again_of(artifact.suffix), code="manifest-hash", path=artifact)
    return content


def _content(artifact: Path) -> dict[str, Any]:
    path, again = manifest_path(artifact), again_of(artifact.suffix)
    content = read_json(path, again)
    if content.get("schema") != SCHEMA:
        message = f"{path} is not a manifest of this program (schema {brief(content.get('schema'))})."
        raise InputError(message, again, code="manifest-schema", path=artifact)
    return content


def _check_data(artifact: Path, manifest: Manifest) -> None:
    data = manifest.external_data
    if data is None:
        return
    path = real_file(artifact).with_name(data.file)
    if not path.is_file():
        raise InputError(
            f"The weights of {artifact} are in {data.file}, which is not beside it.",
            f"It travels with {artifact.name}; copy it along, or export it again from its checkpoint.",
            code="external-data-missing",
            path=path,
        )
    if path.stat().st_size != data.bytes or sha256(path) != data.sha256:
        message = f"{path} does not belong to {artifact}: it was changed or replaced after it was written."
        raise InputError(message, again_of(artifact.suffix), code="external-data-hash", path=path)
