"""Opens a deployed model with its stages in view, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import onnx_ir as ir

from tofe_export.artifacts.artifact import Artifact, open_engine, open_openvino, open_program
from tofe_export.artifacts.opened import Opened, OpenedOnnx
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.manifest import EngineManifest, Manifest, OnnxManifest, ProgramManifest
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import Built, build_engine
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.engine.runtime import EngineSession
from tofe_export.errors import InputError
from tofe_export.files.reading import sha256
from tofe_export.graph.export import export_tofe
from tofe_export.graph.passes.taps import show_taps
from tofe_export.graph.stored import copy_model, read_onnx, serialize
from tofe_export.precision.half import HALVES, is_float32, to_half
from tofe_export.precision.quantize import FORMATS, is_quantized
from tofe_export.progress import Progress
from tofe_export.runners.base import LargeModel, Runner
from tofe_export.runners.wrapped import Padded

BATCH = 8  # images at a time, where nothing else limits them
UNSEEN = (".attn.qkv",)
"""TensorRT-RTX 1.7 ends with an internal error when the product that makes Q, K and V is an output."""


def open_deployed(artifact: Artifact, checkpoint: Checkpoint, provider: str, progress: Progress) -> Runner:
    """The artifact as a runner that also shows its stages; an engine without taps gets a twin, built on the fly.

    A program for phones without taps shows none.

    Raises as `OpenedOnnx`, `open_engine` and `build_engine` do.
    """
    manifest = artifact.manifest
    if isinstance(manifest, ProgramManifest):
        return open_program(artifact.path, manifest)
    if isinstance(manifest, OnnxManifest):
        return _opened_onnx(artifact, manifest, provider)
    engine, options = open_engine(artifact.path, manifest), BuildOptions.of(manifest.options)
    least = options.batch.minimum
    graph = built_from(artifact, manifest, checkpoint)
    if graph is None:
        return Padded(engine, least)

    def open_model(shown: ir.Model) -> Runner:
        backend = open_backend(manifest.backend.name)
        return Padded(EngineSession(build_twin(shown, manifest, progress).content, backend, engine.precision), least)

    return Opened(Padded(engine, least), graph, open_model, options.taps, built_apart=True, unseen=UNSEEN)


def open_with_stages(artifact: Artifact, provider: str) -> Runner:
    """The artifact as a runner that also shows its stages, which engines and programs must have been made to show.

    Raises:
        InputError: one that was not.
        MissingError: see `Artifact.open`.
    """
    manifest = artifact.manifest
    if isinstance(manifest, OnnxManifest):
        return _opened_onnx(artifact, manifest, provider)
    require_stages_shown(artifact)
    return open_padded(artifact, provider)


def require_stages_shown(artifact: Artifact) -> None:
    """Raises InputError for an engine or a program that was made without taps."""
    manifest = artifact.manifest
    if isinstance(manifest, ProgramManifest) and not manifest.taps:
        raise InputError(
            f"{artifact.path} does not show which tokens it chooses.",
            "Package it again with `taps`, or name the ONNX file that it was made from.",
            code="program-without-taps",
            path=artifact.path,
            source=artifact.path.with_name(manifest.source.file),
            precision=manifest.precision,
            checkpoint=manifest.origin.file,
        )
    if isinstance(manifest, EngineManifest) and not manifest.options.taps:
        source = artifact.path.with_name(manifest.source.file)
        raise InputError(
            f"{artifact.path} does not show which tokens it chooses.",
            "Build it again with `taps`, or name the ONNX file that it was built from.",
            code="engine-without-taps",
            path=artifact.path,
            source=source,
            options=manifest.options,
        )


def open_padded(artifact: Artifact, provider: str) -> Runner:
    """The artifact as a runner of any number of images up to `compared_batch`; raises as `Artifact.open` does."""
    return Padded(artifact.open(provider), tried_batches(artifact.manifest)[0])


def _opened_onnx(artifact: Artifact, manifest: OnnxManifest, provider: str) -> Opened:
    content = copy_model(artifact.graph)
    if manifest.runtime == "openvino":
        return opened_in_openvino(artifact.network, manifest, content)
    return OpenedOnnx(artifact.network, content, manifest.precision, provider)


def opened_in_openvino(source: Path | bytes | LargeModel, manifest: OnnxManifest, graph: ir.Model) -> Opened:
    """A file in OpenVINO with its stages in view; `graph` is its content and gets taps.

    Raises as `OpenVinoRunner` does. A twin may round otherwise, for OpenVINO fuses what no output shows.
    """

    def open_model(shown: ir.Model) -> Runner:
        return open_openvino(serialize(shown), manifest)

    shows_stages = not show_taps(graph)
    return Opened(open_openvino(source, manifest), graph, open_model, shows_stages, built_apart=False)


def built_from(artifact: Artifact, manifest: EngineManifest, checkpoint: Checkpoint) -> ir.Model | None:
    """What the engine was built from, in its precision and with its stages as outputs.

    The ONNX file beside the engine, if it is the very one; else a new export of the checkpoint by the manifest's
    options. None for an engine that was quantized on the way from a float32 file, or whose quantized file is gone:
    only that file has its ranges.
    """
    source = artifact.path.parent / manifest.source.file
    at_hand = source.is_file() and sha256(source) == manifest.source.sha256
    precision = manifest.precision
    if at_hand:
        model = read_onnx(source)
        if precision in FORMATS and not is_quantized(model):
            return None
        if manifest.around == "fp16" and is_float32(model):
            to_half(model, "fp16")
        show_taps(model)
    elif precision in FORMATS:
        return None
    else:
        model = export_tofe(checkpoint.model, manifest.keep, manifest.rearrange == "plugin", True, manifest.outputs)
    # Before any module is shown: an output inside a selector would not be taken for part of its scores' end.
    if precision in HALVES and is_float32(model):
        to_half(model, precision)
    return model


def build_twin(graph: ir.Model, manifest: EngineManifest, progress: Progress) -> Built:
    """An engine of `graph`, which is left as it is, with the options of the manifest's engine."""
    options = replace(BuildOptions.of(manifest.options), taps=True)
    backend = open_backend(manifest.backend.name)
    return build_engine(copy_model(graph), backend, options, manifest.precision, progress)


def tried_batches(manifest: Manifest) -> list[int]:
    """Batch sizes to try, ascending: 1 and 3, or what the engine's profile names."""
    profile = _profile(manifest)
    return [1, 3] if profile is None else sorted({profile.minimum, profile.optimum, profile.maximum})


def compared_batch(manifest: Manifest) -> int:
    """How many images to compare at a time."""
    profile = _profile(manifest)
    return BATCH if profile is None else max(profile.minimum, min(BATCH, profile.maximum))


def _profile(manifest: Manifest) -> BatchProfile | None:
    return BuildOptions.of(manifest.options).batch if isinstance(manifest, EngineManifest) else None
