"""What is timed: an artifact or a checkpoint, each beside its own dense backbone on the same backend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from tofe_export.artifacts.artifact import Artifact, open_engine
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.manifest import EngineManifest, Manifest
from tofe_export.documents.recipe import QuantizePolicy
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BuildOptions
from tofe_export.engine.prepare import prepare
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import InputError
from tofe_export.files.names import distinct_names
from tofe_export.graph.export import export_dense
from tofe_export.graph.stored import serialize
from tofe_export.model.allocation import AtMost
from tofe_export.model.backbones import image_shape
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.precision.calibration import read_by
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS, quantize_graph
from tofe_export.progress import Progress
from tofe_export.runners.base import Runner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner
from tofe_export.runners.torch_runner import TorchRunner


@dataclass(frozen=True)
class Subject:
    """A model to time.

    Attributes:
        name: for tables.
        runner: how to run it.
        image_shape: (D, H, W).
        gmacs: cost of one image.
    """

    name: str
    runner: Runner
    image_shape: tuple[int, int, int]
    gmacs: float


@dataclass(frozen=True)
class Group:
    """A dense backbone and what is compared with it; timed together, in turn."""

    dense: Subject
    others: list[Subject]


def open_groups(
    models: Sequence[Artifact | Checkpoint], threads: int, progress: Progress, provider: str = CPU
) -> list[Group]:
    """One group per backend and dense backbone, in the order of the models.

    Args:
        models: what to time.
        threads: threads each of them may use.
        progress: of the engines that are built for comparison.
        provider: where ONNX Runtime computes.

    Raises:
        InputError: a model that a runtime refuses, or a checkpoint without keep counts.
        MissingError: an engine or a provider that cannot run here.
    """
    opener = _Opener(threads, provider, progress, {})
    for model, name in zip(models, _names(models), strict=True):
        opener.add(model, name)
    return list(opener.groups.values())


def _names(models: Sequence[Artifact | Checkpoint]) -> list[str]:
    """File names; a checkpoint that was never in a file is called "checkpoint"."""
    return distinct_names([model.path or Path(f"checkpoint {place}") for place, model in enumerate(models, start=1)])


@dataclass(frozen=True)
class _Opener:
    """Opens models one by one; those with the same backend and the same dense backbone share a group."""

    threads: int
    provider: str
    progress: Progress
    groups: dict[tuple[str, str], Group]

    def add(self, model: Artifact | Checkpoint, name: str) -> None:
        if isinstance(model, Checkpoint):
            self._checkpoint(model, name)
        elif isinstance(model.manifest, EngineManifest):
            self._engine(model, model.manifest, name)
        else:
            self._onnx(model, name)

    def _onnx(self, artifact: Artifact, name: str) -> None:
        manifest = artifact.manifest
        key = (f"onnxruntime {self.provider}", _backbone(_config(manifest)))
        runner = artifact.open(self.provider, self.threads)
        if key not in self.groups:
            # Latency does not depend on the weights' values, so the dense backbone is made from the configuration.
            twin = _twin(artifact)
            dense = OnnxRuntimeRunner(serialize(export_dense(twin)), self.threads, provider=self.provider)
            self.groups[key] = _group(twin, dense)
        self.groups[key].others.append(Subject(name, runner, manifest.image_shape, manifest.gmacs))

    def _engine(self, artifact: Artifact, manifest: EngineManifest, name: str) -> None:
        session = open_engine(artifact.path, manifest)
        key = (f"{session.backend} {session.precision}", _backbone(_config(manifest)))
        if key not in self.groups:
            twin = _twin(artifact)
            self.groups[key] = _group(twin, self._dense_engine(twin, manifest))
        self.groups[key].others.append(Subject(name, session, manifest.image_shape, manifest.gmacs))

    def _dense_engine(self, twin: ToFe, manifest: EngineManifest) -> EngineSession:
        """Built here and now, with the options of the engine it is compared with."""
        options, backend = BuildOptions.of(manifest.options), open_backend(manifest.backend.name)
        model, precision = _dense_like(export_dense(twin), manifest)
        prepared = prepare(model, backend, options, precision)
        built = build_engine(prepared.content, backend, options, prepared.heavy, self.progress)
        return EngineSession(built.content, backend, options.precision)

    def _checkpoint(self, checkpoint: Checkpoint, name: str) -> None:
        model, keep = checkpoint.model, _keep_counts(checkpoint)
        key = ("torch", _backbone(model.config))
        if key not in self.groups:
            self.groups[key] = _group(model, TorchRunner(model.vit))
        path = FixedPath(keep, rearranged=False)
        runner = TorchRunner(lambda images: model.forward_fixed(images, path).logits)
        gmacs = tofe_macs(model, [float(count) for count in keep]) / 1e9
        self.groups[key].others.append(Subject(name, runner, image_shape(model.vit), gmacs))


def _group(model: ToFe, dense: Runner) -> Group:
    """Of a network whose backbone runs in `dense`, with nothing beside it yet."""
    name = f"{model.config.backbone} (dense)"
    return Group(Subject(name, dense, image_shape(model.vit), dense_macs(model.vit) / 1e9), [])


def _keep_counts(checkpoint: Checkpoint) -> tuple[int, ...]:
    try:
        return checkpoint.keep_counts()
    except InputError as error:
        raise InputError(
            error.message, "Export it with `keep`, and time that.", code=error.code, path=checkpoint.path
        ) from error


def _twin(artifact: Artifact) -> ToFe:
    """The network that the manifest describes, unless the file is too small for it: a weight takes a byte or more."""
    data = artifact.manifest.external_data
    held = artifact.path.stat().st_size + (0 if data is None else data.bytes)
    error = InputError(
        f"{artifact.path} is too small for the network that its manifest describes.",
        "Export it again.",
        code="file-too-small",
        path=artifact.path,
    )
    with AtMost(held, error):
        return build_tofe(_config(artifact.manifest)).eval()


def _dense_like(model: ir.Model, manifest: EngineManifest) -> tuple[ir.Model, str]:
    """The dense graph quantized as the engine is, with made-up ranges: latency does not depend on them."""
    if manifest.precision not in FORMATS:
        return model, "fp32"
    policy = QuantizePolicy() if manifest.calibration is None else manifest.calibration.recipe.quantize
    quantized = quantize_graph(model, dict.fromkeys(read_by(model), 1.0), policy, manifest.precision).model
    if manifest.around == "fp16":
        to_half(quantized, "fp16")
    return quantized, manifest.precision


def _config(manifest: Manifest) -> ToFeConfig:
    return ToFeConfig.of(manifest.config)


def _backbone(config: ToFeConfig) -> str:
    """Equal for networks with the same dense backbone."""
    return f"{config.backbone} {sorted(config.backbone_args.items())}"
