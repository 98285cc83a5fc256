"""Opens a deployed model with its stages in view, whatever it is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir

from tofe_export.artifacts.files import sha256
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import Built, build_engine
from tofe_export.engine.options import BuildOptions
from tofe_export.engine.prepare import prepare
from tofe_export.engine.runtime import EngineSession, load_engine
from tofe_export.graph.export import export_tofe
from tofe_export.graph.passes.taps import show_taps
from tofe_export.precision.half import to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.runners.base import LOGITS, Runner
from tofe_export.verify.opened import Opened, OpenedOnnx, read_onnx
from tofe_export.workflows.precision_forms import is_float32
from tofe_export.workflows.progress import Report


def open_deployed(
    artefact: Path, manifest: dict[str, Any], checkpoint: Checkpoint, provider: str, report: Report
) -> Runner:
    """The artefact as a runner that also shows its stages; an engine without taps gets a twin, built on the fly.

    Raises:
        InputError, MissingError: see `OpenedOnnx`, `load_engine` and `build_engine`.
    """
    if manifest["kind"] != "engine":
        return OpenedOnnx(artefact, manifest["precision"], provider)
    engine = load_engine(artefact)
    if BuildOptions.from_dict(manifest["options"]).taps:
        return engine
    graph = tapped_graph(artefact, manifest, checkpoint)
    if graph is None:
        return engine
    built = build_twin(graph, manifest, report)
    return Opened(engine, EngineSession(built.content, open_backend(manifest["backend"]["name"]), engine.precision))


def tapped_graph(artefact: Path, manifest: dict[str, Any], checkpoint: Checkpoint) -> ir.Model | None:
    """What the engine was built from, with its stages as outputs.

    The ONNX file beside the engine, if it is the very one; else a new export of the checkpoint by the manifest's
    options. None for a quantized engine whose file is not at hand: only the file has its ranges.
    """
    source = artefact.parent / manifest["source"]["file"]
    at_hand = source.is_file() and sha256(source) == manifest["source"]["sha256"]
    quantized = manifest["precision"] in FORMATS
    if at_hand:
        model = read_onnx(source)
        if quantized and not any(node.op_type == "DequantizeLinear" for node in model.graph):
            return None
        if manifest.get("around") == "fp16" and is_float32(model):
            to_half(model, "fp16")
        show_taps(model)
        return model
    if quantized:
        return None
    outputs = manifest.get("outputs", [LOGITS])
    return export_tofe(checkpoint.model, manifest["keep"], manifest["rearrange"] == "plugin", True, outputs)


def build_twin(graph: ir.Model, manifest: dict[str, Any], report: Report) -> Built:
    """An engine of `graph` with the options of the manifest's engine."""
    options = replace(BuildOptions.from_dict(manifest["options"]), taps=True)
    backend = open_backend(manifest["backend"]["name"])
    prepared = prepare(graph, backend, options, manifest["precision"] if manifest["precision"] in FORMATS else "fp32")
    return build_engine(prepared.content, backend, options, prepared.heavy, report)


def batch_sizes(manifest: dict[str, Any]) -> list[int]:
    """Batch sizes to try: 1 and 3, or what the engine's profile allows."""
    if manifest["kind"] != "engine":
        return [1, 3]
    profile = BuildOptions.from_dict(manifest["options"]).batch
    return sorted({profile.minimum, min(profile.maximum, profile.minimum + 2)})
