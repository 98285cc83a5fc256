"""What a cluster needs beside a repository for Triton: a KServe manifest, and a Dockerfile for whoever has no KServe.

Fields are those of KServe's `serving.kserve.io/v1beta1`; it runs Triton and scales it out, with the V2 protocol.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from tofe_export.documents.manifest import EngineManifest, Manifest
from tofe_export.errors import InputError, brief
from tofe_export.packages.triton import CONFIG

_MARK = "# Written by tofe-export package."
_DOCKERFILE, _TEMPLATE = "Dockerfile", Path(__file__).with_name("Dockerfile.template")
_RELEASE = "25.01"
"""Of Triton: not tried. The files need one whose ONNX Runtime reads opset 20."""


def require_service_name(name: str) -> str:
    """Raises InputError for a name that Kubernetes does not take (RFC 1123)."""
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", name):
        raise InputError(
            f"A service of Kubernetes cannot be called {brief(name)}.",
            "Give a `name` of at most 63 lower-case letters, digits and -, which begins with a letter.",
            code="service-name",
            name=name,
        )
    return name


def files_for(repository: Path, name: str, manifest: Manifest, storage_uri: str, cpus: int | None) -> dict[Path, str]:
    """Path -> text of the service's manifest and of the Dockerfile; `cpus` is None for instances on a GPU.

    Raises:
        InputError: a file lies there that this program did not write.
    """
    files = {
        repository / f"{name}.yaml": _service(name, manifest, storage_uri, cpus),
        repository / _DOCKERFILE: _dockerfile(repository, manifest),
    }
    for path in files:
        if path.exists() and not (path.is_file() and path.read_bytes().startswith(_MARK.encode())):
            raise InputError(
                f"{path} would be replaced, and this program did not write it.",
                "Choose another place for the repository.",
                code="would-overwrite",
                path=path,
            )
    return files


def _service(name: str, manifest: Manifest, storage_uri: str, cpus: int | None) -> str:
    """An InferenceService: one replica or more, each with the processors of its instances, or a GPU."""
    resources = json.dumps({"nvidia.com/gpu": "1"} if cpus is None else {"cpu": str(cpus)})
    version = f"runtimeVersion: {_RELEASE}-py3"
    if isinstance(manifest, EngineManifest):
        version = f"# runtimeVersion: that of a Triton with TensorRT {manifest.backend.version}"
    return f"""{_MARK}
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: {json.dumps(name)}
spec:
  predictor:
    minReplicas: 1
    model:
      modelFormat:
        name: triton
      {version}
      protocolVersion: v2
      storageUri: {json.dumps(storage_uri)}
      resources:
        requests: {resources}
        limits: {resources}
"""


def _dockerfile(repository: Path, manifest: Manifest) -> str:
    """Triton with the whole repository inside."""
    python = any('backend: "python"' in path.read_text(errors="replace") for path in repository.glob(f"*/{CONFIG}"))
    runtime = "RUN pip install onnxruntime\n" if python else ""
    image = f"ARG TRITON=nvcr.io/nvidia/tritonserver:{_RELEASE}-py3"
    if isinstance(manifest, EngineManifest):
        image = f"# TRITON is to be an image with TensorRT {manifest.backend.version}.\nARG TRITON"
    return _TEMPLATE.read_text(encoding="utf-8").format(mark=_MARK, image=image, runtime=runtime)
