"""The dense backbone as its model was deployed: on the same runtime, in the same precision, rewritten in the same way.

So a speed-up shows what fewer tokens gain and nothing else. Latency does not depend on the values of weights and
ranges, so they are made up. `TWINS` has one entry per kind of model; whatever else a model goes through after its
export, its twin must go through in `_rewritten`, or in an entry of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx_ir as ir
import torch

from tofe_export.artifacts.artifact import Artifact
from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.documents.manifest import EngineManifest, Manifest, OnnxManifest
from tofe_export.documents.onnx_options import OnnxOptions
from tofe_export.documents.recipe import QuantizePolicy
from tofe_export.engine.backend import open_backend
from tofe_export.engine.build import build_engine
from tofe_export.engine.options import BuildOptions
from tofe_export.errors import InputError
from tofe_export.graph.export import export_dense
from tofe_export.graph.stored import write
from tofe_export.graph.targets import rewrite_for
from tofe_export.model.allocation import AtMost
from tofe_export.model.config import ToFeConfig
from tofe_export.model.tofe import ToFe, build_tofe
from tofe_export.precision.calibration import read_by
from tofe_export.precision.half import HALVES, to_half
from tofe_export.precision.quantize import FORMATS, quantize_graph
from tofe_export.precision.weights import WEIGHTS_PASS, weights_in_8_bits
from tofe_export.progress import Progress
from tofe_export.runners.onnxruntime_runner import CPU
from tofe_export.timing.subjects import AnyModel, CheckpointFile, EngineFile


@dataclass(frozen=True)
class Place:
    """Where models are prepared and run.

    Attributes:
        folder: for the files that are made for the timing; they must stay until it is over.
        threads: of each model.
        provider: where ONNX Runtime computes.
        progress: of engines that are built.
    """

    folder: Path
    threads: int
    progress: Progress
    provider: str = CPU

    def file(self, suffix: str) -> Path:
        """A new name in the folder."""
        return self.folder / f"{len(list(self.folder.iterdir()))}{suffix}"


@dataclass(frozen=True)
class Twin:
    """A dense backbone: how to open it, and its network, of which only the structure matters."""

    file: AnyModel
    network: ToFe


def dense_twin(model: Artifact | Checkpoint, file: AnyModel, place: Place) -> Twin:
    """The dense backbone of a model, prepared in the place; `file` is how the model itself is opened.

    Raises:
        InputError: the model's file is too small for what its manifest describes, or a runtime refuses the backbone.
    """
    return TWINS[file.kind](model, file, place)


def _of_checkpoint(model: Artifact | Checkpoint, file: AnyModel, place: Place) -> Twin:
    assert isinstance(model, Checkpoint)
    assert isinstance(file, CheckpointFile)
    return Twin(file.replaced(dense=True), model.model)


def _of_onnx(model: Artifact | Checkpoint, file: AnyModel, place: Place) -> Twin:
    """For every runtime that reads ONNX files."""
    assert isinstance(model, Artifact)
    network, path = _network(model), place.file(".onnx")
    write_model(_rewritten(export_dense(network), model.manifest), path)
    return Twin(file.replaced(path=path), network)


def _of_engine(model: Artifact | Checkpoint, file: AnyModel, place: Place) -> Twin:
    """Built here and now, with the options of the engine that it stands beside."""
    assert isinstance(model, Artifact)
    assert isinstance(model.manifest, EngineManifest)
    assert isinstance(file, EngineFile)
    network, path, manifest = _network(model), place.file(".engine"), model.manifest
    graph, options = _rewritten(export_dense(network), manifest), BuildOptions.of(manifest.options)
    built = build_engine(graph, open_backend(manifest.backend.name), options, manifest.precision, place.progress)
    path.write_bytes(built.content)
    return Twin(file.replaced(path=path), network)


TWINS: Mapping[str, Callable[[Artifact | Checkpoint, AnyModel, Place], Twin]] = {
    "checkpoint": _of_checkpoint,
    "onnx": _of_onnx,
    "openvino": _of_onnx,
    "engine": _of_engine,
}
"""The kind of subject -> how its dense twin is made."""


def write_model(model: ir.Model, path: Path) -> None:
    """Writes a graph, above 2 GB with its weights in a file beside it; nobody else may read it yet."""

    def write_data(write_weights: Callable[[BinaryIO], None]) -> str:
        data = path.with_name(f"{path.name}.data")
        with data.open("wb") as file:
            write_weights(file)
        return data.name

    write(model, path, write_data)


def _network(artifact: Artifact) -> ToFe:
    """The network that the manifest describes, with random weights, which are the same each time.

    A file that is too small for it is refused: a weight takes a byte or more.
    """
    data = artifact.manifest.external_data
    held = artifact.path.stat().st_size + (0 if data is None else data.bytes)
    error = InputError(
        f"{artifact.path} is too small for the network that its manifest describes.",
        "Export it again.",
        code="file-too-small",
        path=artifact.path,
    )
    with AtMost(held, error), torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on
        torch.manual_seed(0)
        return build_tofe(ToFeConfig.of(artifact.manifest.config)).eval()


def _rewritten(graph: ir.Model, manifest: Manifest) -> ir.Model:
    """A dense float32 graph as the model of the manifest was rewritten after its export; ranges are made up."""
    options = manifest.options if isinstance(manifest, OnnxManifest) else OnnxOptions()
    weights_alone = WEIGHTS_PASS in options.passes
    if manifest.precision in FORMATS and not weights_alone:
        policy = QuantizePolicy() if manifest.calibration is None else manifest.calibration.recipe.quantize
        graph = quantize_graph(graph, dict.fromkeys(read_by(graph), 1.0), policy, manifest.precision).model
    half = manifest.around if manifest.precision in FORMATS else manifest.precision
    if half in HALVES and options.arithmetic == "fp32":  # else OpenVINO computes in it, and the graph stays as it is
        to_half(graph, half)
    if options.target is not None:
        rewrite_for(graph, options.target)
    return weights_in_8_bits(graph)[0] if weights_alone else graph
