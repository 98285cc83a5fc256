"""The manifest beside every artefact (`model.onnx.json`): where it came from and how it must be used.

A sidecar, never a prefix inside the artefact, so that every other tool can still read the artefact itself.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import read_json, require_file, sha256
from tofe_export.artifacts.manifest_schema import AGAIN, check_manifest, external_data
from tofe_export.artifacts.parts import folder_lock, sync_folder
from tofe_export.artifacts.places import is_there, real_file
from tofe_export.errors import InputError

SCHEMA = "tofe-export/manifest/1"


def manifest_path(artefact: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return artefact.with_name(artefact.name + ".json")


def pending_path(artefact: Path) -> Path:
    """Where a new manifest waits while the artefact is replaced: `.model.onnx.json.pending`."""
    described = real_file(manifest_path(artefact))
    return described.with_name(f".{described.name}.pending")


def has_manifest(artefact: Path) -> bool:
    """Whether there is a manifest beside `artefact`, be it one that a killed run left waiting."""
    with contextlib.suppress(InputError):  # under a name that is too long there is none
        return is_there(manifest_path(artefact)) or _waiting(artefact) is not None
    return False


def files_of(artefact: Path) -> list[Path]:
    """Every file that belongs to `artefact`, itself first; their content is not compared."""
    found = [artefact, manifest_path(artefact), pending_path(artefact)]
    for path in found[1:]:
        with contextlib.suppress(InputError, OSError):
            data = external_data(read_json(path))
            found += [] if data is None else [real_file(artefact).with_name(data["file"])]
    return found


def read_manifest(artefact: Path) -> dict[str, Any]:
    """The manifest of `artefact`, after checking that it belongs to these very bytes, and its external data too.

    What a killed run had committed is finished first, where the folder can be written.

    Raises:
        InputError: no artefact, no manifest, another schema, a field that is missing or not of its kind (see
            `check_manifest`), a hash that does not match, or external data that is missing or was changed.
    """
    require_file(artefact)
    try:
        manifest = _matching(artefact)
    except InputError:
        with folder_lock(artefact.parent):  # somebody may be between the two renames right now
            manifest = finish(artefact) or _matching(artefact)
    check_manifest(manifest, manifest_path(artefact), artefact.suffix)
    _check_data(artefact, manifest)
    return manifest


def finish(artefact: Path) -> dict[str, Any] | None:
    """Gives a waiting manifest its place if it describes the artefact that is there; call it under `folder_lock`.

    Returns:
        That manifest; None where none waits, or it is of a run that was killed before it replaced the artefact.
    """
    manifest, pending = _waiting(artefact), pending_path(artefact)
    if manifest is not None:
        with contextlib.suppress(OSError):  # in a folder that cannot be written it serves where it lies
            pending.replace(real_file(manifest_path(artefact)))
            sync_folder(pending.parent)
    return manifest


def _waiting(artefact: Path) -> dict[str, Any] | None:
    pending = pending_path(artefact)
    if not os.path.isfile(pending) or not os.path.isfile(artefact):  # noqa: PTH113 - Path.is_file raises for long names
        return None
    try:
        manifest = read_json(pending)
    except InputError:  # cut off
        return None
    return manifest if manifest.get("schema") == SCHEMA and manifest.get("sha256") == sha256(artefact) else None


def _matching(artefact: Path) -> dict[str, Any]:
    path = manifest_path(artefact)
    again = _again(artefact)
    require_file(path, f"It travels beside {artefact.name}; copy it along. Or: {again}")
    manifest = read_json(path, again)
    if manifest.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a manifest of this program (schema {manifest.get('schema')!r}).", again)
    if manifest.get("sha256") != sha256(artefact):
        raise InputError(
            f"{path.name} does not belong to {artefact}: the file was changed or replaced after it was written.",
            again,
        )
    return manifest


def _again(artefact: Path) -> str:
    return AGAIN["engine" if artefact.suffix == ".engine" else "onnx"]


def _check_data(artefact: Path, manifest: dict[str, Any]) -> None:
    data = manifest.get("external_data")
    if data is None:
        return
    path = real_file(artefact).with_name(data["file"])
    if not path.is_file():
        raise InputError(
            f"The weights of {artefact} are in {data['file']}, which is not beside it.",
            f"It travels with {artefact.name}; copy it along, or export it again with tofe-export onnx.",
        )
    if path.stat().st_size != data["bytes"] or sha256(path) != data["sha256"]:
        raise InputError(
            f"{path} does not belong to {artefact}: it was changed or replaced after it was written.",
            AGAIN["onnx"],
        )
