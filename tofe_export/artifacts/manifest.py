"""The manifest beside every artefact (`model.onnx.json`): where it came from and how it must be used.

A sidecar, never a prefix inside the artefact, so that every other tool can still read the artefact itself.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import atomic_path, read_json, require_file, sha256
from tofe_export.errors import InputError

SCHEMA = "tofe-export/manifest/1"
_AGAIN = {"onnx": "Export again with tofe-export onnx.", "engine": "Build it again with tofe-export trt."}
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "kind": str,
    "source": dict,
    "config": dict,
    "tokens": int,
    "keep": list,
    "stages": list,
    "rearrange": str,
    "precision": str,
    "gmacs": (int, float),
    "dense_gmacs": (int, float),
    "preprocessing": dict,
    "preprocessing_sha256": str,
}


def manifest_path(artefact: Path) -> Path:
    """`model.onnx` -> `model.onnx.json`."""
    return artefact.with_name(artefact.name + ".json")


@dataclass
class Draft:
    """An artefact that is being made.

    Attributes:
        path: where to write it for now.
        manifest: what its manifest will say; fill it in before the draft is done.
    """

    path: Path
    manifest: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def atomic_artefact(target: Path) -> Iterator[Draft]:
    """Yields a draft; on success artefact and manifest take their places together, else neither does.

    Both are written whole before either is renamed, so that a full disk leaves the old pair. Only a kill between the
    two renames can part them, and `read_manifest` then says so.

    Raises:
        InputError, MissingError: see `atomic_path`.
    """
    with atomic_path(manifest_path(target)) as described, atomic_path(target) as temporary:
        draft = Draft(temporary)
        yield draft
        content = {"schema": SCHEMA, "sha256": sha256(temporary), **draft.manifest}
        described.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_manifest(artefact: Path) -> dict[str, Any]:
    """The manifest of `artefact`, after checking that it belongs to these very bytes.

    Raises:
        InputError: no artefact, no manifest, another schema, a field that is missing or of another kind, or a hash that
            does not match.
    """
    require_file(artefact)
    path = manifest_path(artefact)
    again = _AGAIN["engine" if artefact.suffix == ".engine" else "onnx"]
    require_file(path, f"It travels beside {artefact.name}; copy it along. Or: {again}")
    manifest = read_json(path)
    if manifest.get("schema") != SCHEMA:
        raise InputError(f"{path} is not a manifest of this program (schema {manifest.get('schema')!r}).", again)
    if manifest.get("sha256") != sha256(artefact):
        raise InputError(
            f"{path.name} does not belong to {artefact}: the file was changed or replaced after it was written.",
            again,
        )
    for name, kind in _FIELDS.items():
        if not isinstance(manifest.get(name), kind):
            raise InputError(f"{path} has no usable {name!r}.", again)
    return manifest
