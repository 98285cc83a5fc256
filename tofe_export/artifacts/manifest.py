"""The manifest beside every artefact (`model.onnx.json`): where it came from and how it must be used.

A sidecar, never a prefix inside the artefact, so that every other tool can still read the artefact itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import read_json, require_file, sha256, write_json
from tofe_export.errors import InputError

SCHEMA = "tofe-export/manifest/1"


def manifest_path(artefact: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return artefact.with_name(artefact.name + ".json")


def write_manifest(artefact: Path, content: dict[str, Any]) -> Path:
    """Writes the manifest of `artefact`, adding schema and the artefact's sha256; returns its path."""
    path = manifest_path(artefact)
    write_json(path, {"schema": SCHEMA, "sha256": sha256(artefact), **content})
    return path


def read_manifest(artefact: Path) -> dict[str, Any]:
    """The manifest of `artefact`, after checking that it belongs to these very bytes.

    Raises:
        InputError: no artefact, no manifest, another schema, or a hash that does not match.
    """
    require_file(artefact)
    path = manifest_path(artefact)
    require_file(path, f"It travels beside {artefact.name}; copy it along, or export again with tofe-export onnx.")
    manifest = read_json(path)
    if manifest.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is not a manifest of this program (schema {manifest.get('schema')!r}).", "Export again."
        )
    if manifest.get("sha256") != sha256(artefact):
        raise InputError(
            f"{path.name} does not belong to {artefact}: the file was changed or replaced after it was written.",
            "Export again with tofe-export onnx.",
        )
    return manifest
