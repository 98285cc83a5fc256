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
from tofe_export.engine.options import BatchProfile, BuildOptions
from tofe_export.engine.prepare import prepare
from tofe_export.engine.runtime import EngineSession, load_engine
from tofe_export.graph.export import export_tofe
from tofe_export.graph.passes.taps import show_taps
from tofe_export.graph.stored import copy_model
from tofe_export.precision.half import HALVES, to_half
from tofe_export.precision.quantize import FORMATS
from tofe_export.runners.base import LOGITS, Runner
from tofe_export.runners.padded import Padded
from tofe_export.verify.opened import Opened, OpenedOnnx, read_onnx
from tofe_export.workflows.precision_forms import is_float32
from tofe_export.workflows.progress import Report

_BATCH = 8
UNSEEN = (".attn.qkv",)
"""TensorRT-RTX 1.7 ends with an internal error when the product that makes Q, K and V is an output."""


def open_deployed(
    artefact: Path, manifest: dict[str, Any], checkpoint: Checkpoint, provider: str, report: Report
) -> Runner:
    """The artefact as a runner that also shows its stages; an engine without taps gets a twin, built on the fly.

    Raises:
        InputError, MissingError: see `OpenedOnnx`, `load_engine` and `build_engine`.
    """
    if manifest["kind"] != "engine":
        return OpenedOnnx(artefact, manifest["precision"], provider)
    engine, options = load_engine(artefact), BuildOptions.from_dict(manifest["options"])
    least = options.batch.minimum
    graph = built_from(artefact, manifest, checkpoint)
    if graph is None:
        return Padded(engine, least)

    def open_model(shown: ir.Model) -> Runner:
        backend = open_backend(manifest["backend"]["name"])
        return Padded(EngineSession(build_twin(shown, manifest, report).content, backend, engine.precision), least)

    return Opened(Padded(engine, least), graph, open_model, options.taps, built_apart=True, unseen=UNSEEN)


def built_from(artefact: Path, manifest: dict[str, Any], checkpoint: Checkpoint) -> ir.Model | None:
    """What the engine was built from, in its precision and with its stages as outputs.

    The ONNX file beside the engine, if it is the very one; else a new export of the checkpoint by the manifest's
    options. None for an engine that was quantized on the way from a float32 file, or whose quantized file is gone:
    only that file has its ranges.
    """
    source = artefact.parent / manifest["source"]["file"]
    at_hand = source.is_file() and sha256(source) == manifest["source"]["sha256"]
    precision = manifest["precision"]
    if at_hand:
        model = read_onnx(source)
        if precision in FORMATS and not any(node.op_type == "DequantizeLinear" for node in model.graph):
            return None
        if manifest.get("around") == "fp16" and is_float32(model):
            to_half(model, "fp16")
        show_taps(model)
    elif precision in FORMATS:
        return None
    else:
        outputs = manifest.get("outputs", [LOGITS])
        model = export_tofe(checkpoint.model, manifest["keep"], manifest["rearrange"] == "plugin", True, outputs)
    # Before any module is shown: an output inside a selector would not be taken for part of its scores' end.
    if precision in HALVES and is_float32(model):
        to_half(model, precision)
    return model


def build_twin(graph: ir.Model, manifest: dict[str, Any], report: Report) -> Built:
    """An engine of `graph`, which is left as it is, with the options of the manifest's engine."""
    options = replace(BuildOptions.from_dict(manifest["options"]), taps=True)
    backend = open_backend(manifest["backend"]["name"])
    prepared = prepare(copy_model(graph), backend, options, manifest["precision"])
    return build_engine(prepared.content, backend, options, prepared.heavy, report)


def tried_batches(manifest: dict[str, Any]) -> list[int]:
    """Batch sizes to try, ascending: 1 and 3, or what the engine's profile names."""
    profile = _profile(manifest)
    return [1, 3] if profile is None else sorted({profile.minimum, profile.optimum, profile.maximum})


def compared_batch(manifest: dict[str, Any]) -> int:
    """How many images to compare at a time."""
    profile = _profile(manifest)
    return _BATCH if profile is None else max(profile.minimum, min(_BATCH, profile.maximum))


def _profile(manifest: dict[str, Any]) -> BatchProfile | None:
    return BuildOptions.from_dict(manifest["options"]).batch if manifest["kind"] == "engine" else None
