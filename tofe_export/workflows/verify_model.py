"""`tofe-export verify`: a deployed model against the checkpoint it came from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import sha256
from tofe_export.artifacts.manifest import read_manifest
from tofe_export.checkpoints.checkpoint import load_like
from tofe_export.data.images import CorruptLog, batches
from tofe_export.engine.runtime import load_engine
from tofe_export.errors import InputError
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import check_keep
from tofe_export.verify.compare import compare
from tofe_export.verify.opened import OpenedOnnx
from tofe_export.verify.tolerances import TOLERANCES
from tofe_export.workflows.export_onnx import parity_source
from tofe_export.workflows.progress import Report, silent, tracked

_BATCH = 8


@dataclass(frozen=True)
class VerifyResult:
    """verify.json, and which images had to be skipped."""

    document: dict[str, Any]
    skipped: list[str]


def verify_model(
    artefact: Path, source: Path, data: str | None = None, samples: int = 128, report: Report = silent
) -> VerifyResult:
    """Compares `artefact` with the checkpoint `source` on at most `samples` images of `data`.

    Raises:
        MissingError: an engine that cannot run here.
        InputError: a file that is missing or of another kind, a manifest that does not belong, another network.
    """
    manifest = read_manifest(artefact)
    config = ToFeConfig.from_dict(manifest["config"])
    checkpoint = load_like(source, config)
    if config != checkpoint.model.config:
        raise InputError(
            f"{artefact} was exported from another network than {source} holds "
            f"({_name(manifest.get('config'))} and {_name(checkpoint.model.config.to_dict())}).",
            f"Verify against {manifest.get('source', {}).get('file', 'its own checkpoint')}.",
        )
    if manifest["precision"] not in TOLERANCES:
        raise InputError(
            f"{artefact} is in {manifest['precision']}, and there are no tolerances for that.",
            f"Known: {', '.join(TOLERANCES)}.",
        )
    keep = check_keep([int(count) for count in manifest["keep"]], checkpoint.model)
    images = parity_source(checkpoint, data)
    corrupt = CorruptLog()
    labelled = images.classes == checkpoint.classes  # other classes have other numbers
    loop = batches(images, checkpoint.preprocessing, _BATCH, limit=samples, on_corrupt=corrupt)
    steps = -(-min(samples, len(images)) // _BATCH)
    found = compare(
        checkpoint.model,
        load_engine(artefact) if manifest["kind"] == "engine" else OpenedOnnx(artefact),
        keep,
        manifest["rearrange"] == "plugin",
        tracked(loop, "Comparing with PyTorch", steps, report),
        manifest["precision"],
        labelled,
    )
    if manifest["preprocessing_sha256"] != checkpoint.preprocessing.digest():
        found.broken.append(f"{artefact.name} was exported for images prepared in another way than {source.name} says.")
    same_file = manifest.get("checkpoint", manifest["source"])["sha256"] == sha256(source)
    document = {
        "schema": "tofe-export/verify/1",
        "model": artefact.name,
        "against": source.name,
        "exported_from_this_file": same_file,
        "data": images.name,
        "precision": manifest["precision"],
        "keep": list(keep),
        **found.to_dict(),
    }
    return VerifyResult(document, corrupt.lines())


def _name(config: object) -> str:
    return str(config.get("backbone", "an unknown backbone")) if isinstance(config, dict) else "an unknown backbone"
