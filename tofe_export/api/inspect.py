"""What a file is: network, stages, keep counts, cost, operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnx_ir as ir

from tofe_export.api.load import AnyModel, load
from tofe_export.artifacts.artifact import Artifact, open_artifact, open_engine
from tofe_export.artifacts.manifests import has_manifest
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.checkpoints.unwrap import Choice
from tofe_export.documents.fields import plain
from tofe_export.documents.inspection import (
    AnyInspection,
    CheckpointInspection,
    EngineInspection,
    GraphOperator,
    OnnxInspection,
    ProgramInspection,
)
from tofe_export.documents.manifest import EngineManifest, ProgramManifest
from tofe_export.engine.network import layer_histogram
from tofe_export.errors import InputError, MissingError
from tofe_export.files.names import DEPLOYED, readable
from tofe_export.files.reading import require_file, sha256
from tofe_export.graph.functions import is_operator
from tofe_export.graph.stored import read_onnx
from tofe_export.model.flops import dense_macs, tofe_macs
from tofe_export.parity.provenance import weights_not_finite


def inspect(
    file: AnyModel,
    *,
    backbone: str | None = None,
    backbone_args: Mapping[str, object] | None = None,
    selector: str | None = None,
    fuse_token: bool | None = None,
    stages: Sequence[int] = (),
    keep_rate: float | None = None,
    image_size: int | tuple[int, int] | None = None,
    weights: Choice = "auto",
) -> AnyInspection:
    """Describes a checkpoint, an ONNX file, an engine or a program for phones; `kind` says which of them it is.

    Args:
        file: what to describe.
        backbone, backbone_args, selector, fuse_token, stages, keep_rate, image_size, weights: what the file of a
            checkpoint does not say itself, as in `load`.

    Raises:
        InputError: a file that is missing, damaged or of another kind, a manifest that does not belong to it, or
            arguments about a network for a file that is not a checkpoint.
    """
    if isinstance(file, Checkpoint):
        return _checkpoint(file)
    if isinstance(file, Artifact):
        return _artifact(file)
    path = Path(file)
    if path.suffix not in DEPLOYED:
        checkpoint = load(
            path,
            backbone=backbone,
            backbone_args=backbone_args,
            selector=selector,
            fuse_token=fuse_token,
            stages=stages,
            keep_rate=keep_rate,
            image_size=image_size,
            weights=weights,
        )
        return _checkpoint(checkpoint)
    require_file(path)
    given = (backbone, backbone_args, selector, fuse_token is not None, stages, keep_rate is not None, image_size)
    if any(given) or weights != "auto":
        raise InputError(
            f"{path} says itself what it is: arguments about a network are for checkpoints.",
            "Omit `backbone`, `backbone_args`, `selector`, `stages`, `fuse_token`, `keep_rate`, `image_size` and "
            "`weights`.",
            code="hints-for-artifact",
            path=path,
        )
    if path.suffix == ".onnx" and not has_manifest(path):
        return _graph(path, read_onnx(path), sha256(path))
    return _artifact(open_artifact(path))


def _checkpoint(checkpoint: Checkpoint) -> CheckpointInspection:
    model, path = checkpoint.model, checkpoint.path
    broken = weights_not_finite(checkpoint)
    keep = checkpoint.keep_counts() if checkpoint.knows_keep else None
    return CheckpointInspection(
        file="" if path is None else readable(path.name),
        size_bytes=0 if path is None else path.stat().st_size,
        sha256=checkpoint.file_sha256,
        recognised=checkpoint.recognised,
        notes=(*checkpoint.notes, broken) if broken else checkpoint.notes,
        assumed=checkpoint.assumed,
        hub=checkpoint.hub,
        config=model.config.document(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=model.tokens,
        prefix=model.prefix,
        stages=tuple((blocks.start, blocks.stop) for blocks in model.stage_blocks),
        keep_ratios=checkpoint.keep_ratios,
        dense_gmacs=dense_macs(model.vit) / 1e9,
        preprocessing=checkpoint.preprocessing.document(),
        data=checkpoint.data,
        metrics={str(name): plain(value) for name, value in checkpoint.metrics.items()},
        keep=keep,
        gmacs=None if keep is None else tofe_macs(model, [float(count) for count in keep]) / 1e9,
    )


def _artifact(artifact: Artifact) -> AnyInspection:
    if isinstance(artifact.manifest, EngineManifest):
        return _engine(artifact.path, artifact.manifest)
    if isinstance(artifact.manifest, ProgramManifest):
        return ProgramInspection(
            file=readable(artifact.path.name),
            size_bytes=artifact.path.stat().st_size,
            sha256=artifact.manifest.sha256,
            manifest=artifact.manifest,
        )
    described = _graph(artifact.path, read_onnx(artifact.path), artifact.manifest.sha256)
    return described.replaced(manifest=artifact.manifest)


def _engine(path: Path, manifest: EngineManifest) -> EngineInspection:
    """From the engine where it can be loaded, else from its manifest."""
    network, why = manifest.network, None
    try:
        layers = layer_histogram(open_engine(path, manifest).information())
    except MissingError as error:
        layers, why = network.layers, error.message
    counts = sum((Counter(by_precision) for by_precision in layers.values()), Counter[str]())
    return EngineInspection(
        file=readable(path.name),
        size_bytes=path.stat().st_size,
        sha256=manifest.sha256,
        layers_from="engine" if why is None else "manifest",
        why=why,
        **{**dict(network), "layers": layers},
        precisions=dict(counts),
        batch=manifest.options.batch,
        manifest=manifest,
    )


def _graph(path: Path, model: ir.Model, digest: str) -> OnnxInspection:
    graph = model.graph
    return OnnxInspection(
        file=readable(path.name),
        size_bytes=path.stat().st_size,
        sha256=digest,
        inputs={str(value.name): str(value.shape) for value in graph.inputs},
        outputs={str(value.name): str(value.shape) for value in graph.outputs},
        nodes=dict(Counter(_type_of(node) for node in graph).most_common()),
        operators=tuple(
            GraphOperator(
                name=node.name or "",
                operator=_type_of(node),
                **{key: node.attributes.get_int(key) for key in ("keep", "prefix") if key in node.attributes},
            )
            for node in graph
            if is_operator(node)
        ),
        manifest=None,
    )


def _type_of(node: ir.Node) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else node.op_type
