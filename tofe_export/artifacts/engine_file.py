"""Opens an engine after comparing what it was built with and for with what is here."""

from __future__ import annotations

from pathlib import Path

import torch

from tofe_export.documents.manifest import EngineManifest
from tofe_export.engine.backend import open_backend
from tofe_export.engine.runtime import EngineSession, require_gpu
from tofe_export.errors import MissingError


def open_engine(path: Path, manifest: EngineManifest) -> EngineSession:
    """Loads an engine.

    Args:
        path: the engine.
        manifest: its manifest, already compared with its bytes.

    Raises:
        MissingError: another TensorRT version, another GPU, or no GPU.
    """
    backend = open_backend(manifest.backend.name)
    options, built = manifest.options, manifest.backend
    again = {"path": path, "source": path.with_name(manifest.source.file), "options": options}
    if backend.version != built.version and not options.version_compatible:
        raise MissingError(
            f"{path} was built by {backend.module.__name__} {built.version}; installed is {backend.version}.",
            "Build it again.",
            code="engine-version",
            **again,
        )
    require_gpu()
    here = torch.cuda.get_device_name()
    if built.gpu not in (None, here) and backend.name == "tensorrt" and options.hardware == "none":
        raise MissingError(
            f"{path} was built for {built.gpu}; this machine has {here}.",
            "Build it here.",
            code="engine-gpu",
            **again,
        )
    return EngineSession(path.read_bytes(), backend, manifest.precision)
