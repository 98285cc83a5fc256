"""A deployed file as an object: opened, hashed and described once, whatever is done with it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx_ir as ir
import torch

from tofe_export.artifacts.manifests import read_manifest
from tofe_export.documents.manifest import AnyManifest, EngineManifest, Manifest, OnnxManifest, ProgramManifest
from tofe_export.engine.backend import open_backend
from tofe_export.engine.runtime import EngineSession, require_gpu
from tofe_export.errors import InputError, MissingError
from tofe_export.graph.passes.ends import cut_ends
from tofe_export.graph.stored import read_onnx, serialize
from tofe_export.runners.base import LOGITS, LargeModel, TimedRunner
from tofe_export.runners.one_by_one import ExecuTorchRunner, LiteRtRunner, OneByOne
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner
from tofe_export.runners.openvino_runner import OpenVinoRunner


@dataclass(frozen=True)
class Artifact:
    """An ONNX file, an engine or a program for phones that this program wrote.

    Attributes:
        path: the file.
        manifest: what stands beside it; its hash is the file's.
    """

    path: Path
    manifest: AnyManifest

    @cached_property
    def graph(self) -> ir.Model:
        """The network's ONNX graph, without what prepares images before it and names classes behind it.

        It is parsed once and shared: copy it (`graph.stored.copy_model`) before you change it.

        Raises:
            InputError: the artifact is of another kind, or the file is damaged.
        """
        if self.manifest.kind != "onnx":
            what = "an engine" if self.manifest.kind == "engine" else "a program for phones"
            raise InputError(f"{self.path} is {what}, not an ONNX file.", code="not-onnx", path=self.path)
        model = read_onnx(self.path)
        cut_ends(model)
        return model

    @property
    def network(self) -> Path | bytes | LargeModel:
        """What a runtime opens to run the network: the file, or the network cut out of one that has ends."""
        ends = isinstance(self.manifest, OnnxManifest) and self.manifest.has_ends
        return serialize(self.graph) if ends else self.path

    def open(self, provider: str = CPU, threads: int | None = None) -> TimedRunner:
        """A runner: `open().run(images)["logits"]`, images float32 [B, D, H, W].

        Args:
            provider: where ONNX Runtime computes, "cpu" or "cuda".
            threads: of ONNX Runtime or OpenVINO; None means every processor of this process.

        Raises:
            MissingError: no such provider here, an engine that cannot run here, or a runtime that is not installed.
            InputError: the runtime refuses the file.
        """
        if isinstance(self.manifest, EngineManifest):
            return open_engine(self.path, self.manifest)
        if isinstance(self.manifest, ProgramManifest):
            return open_program(self.path, self.manifest)
        if self.manifest.runtime == "openvino":
            return open_openvino(self.network, self.manifest, threads)
        session = self.manifest.options.session
        return OnnxRuntimeRunner(self.network, threads, self.manifest.precision, provider, session=session)


def require_onnxruntime(artifacts: Sequence[Artifact], provider: str) -> None:
    """Raises InputError where a provider is named, and none of the artifacts runs in ONNX Runtime."""
    if provider == CPU or not artifacts:
        return
    manifests = [artifact.manifest for artifact in artifacts]
    if not any(isinstance(one, OnnxManifest) and one.runtime == "onnxruntime" for one in manifests):
        raise InputError(
            "`provider` is for ONNX Runtime, and none of the files runs in it.",
            "Omit `provider`.",
            code="provider-without-onnx",
            provider=provider,
        )


def require_logits(manifest: Manifest) -> None:
    """Raises InputError for a model that names no classes."""
    if LOGITS not in manifest.outputs:
        raise InputError(
            "This model returns features but no logits, so it names no classes.",
            "Export it with `outputs` that include logits.",
            code="no-logits",
        )


def open_artifact(artifact: Artifact | Path | str) -> Artifact:
    """The artifact in a file, checked by `read_manifest`; an artifact that is open already is returned as it is."""
    if isinstance(artifact, Artifact):
        return artifact
    path = Path(artifact)
    return Artifact(path, read_manifest(path))


def open_openvino(
    model: Path | bytes | LargeModel, manifest: OnnxManifest, threads: int | None = None
) -> OpenVinoRunner:
    """The model in OpenVINO, as its manifest says; raises as `OpenVinoRunner` does."""
    assert not isinstance(model, LargeModel)  # `optimize` makes no larger file for OpenVINO
    return OpenVinoRunner(model, threads, manifest.precision, manifest.options.arithmetic)


def open_program(path: Path, manifest: ProgramManifest) -> OneByOne:
    """The program in its runtime on this machine; raises as `OneByOne` does."""
    runner = ExecuTorchRunner if manifest.runtime == "executorch" else LiteRtRunner
    return runner(path, manifest.returns, manifest.precision)


def open_engine(path: Path, manifest: EngineManifest) -> EngineSession:
    """Loads an engine whose manifest has been compared with its bytes.

    Raises:
        MissingError: see `require_engine_fits`.
    """
    require_engine_fits(path, manifest)
    return EngineSession(path.read_bytes(), open_backend(manifest.backend.name), manifest.precision)


def require_engine_fits(path: Path, manifest: EngineManifest) -> None:
    """Raises MissingError where an engine is of another TensorRT version or another GPU, or there is no GPU."""
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
