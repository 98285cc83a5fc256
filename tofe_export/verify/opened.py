"""A deployed model with its inside in view: its outputs are its own, stages and modules those of a twin."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tofe_export.artifacts.files import require_file
from tofe_export.errors import CheckFailedError, InputError
from tofe_export.graph.modules import module_values, modules_with_nodes
from tofe_export.graph.passes.taps import show_taps, tap_name, tapped_stages
from tofe_export.graph.stored import copy_model, deserialize, fits, serialize
from tofe_export.runners.base import Array, LargeModel, Runner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner
from tofe_export.runners.reopened import Reopened

_AGAIN = "Export it again with tofe-export onnx."


class Opened:
    """A `Runner` that adds what a twin with taps shows to what the deployed file itself returns.

    Args:
        deployed: the file that is judged.
        model: what it is, or was built from, in the precision it computes in.
        open_model: makes a runner of it, which it must leave as it is.
        shows_stages: whether the deployed file shows its stages itself; else a twin is made here and now.
        built_apart: the twin is not the deployed file with more outputs but built anew, and may round otherwise.
        unseen: endings of names of modules that its runtime cannot show.
    """

    def __init__(
        self,
        deployed: Runner,
        model: ir.Model,
        open_model: Callable[[ir.Model], Runner],
        shows_stages: bool,
        built_apart: bool,
        unseen: tuple[str, ...] = (),
    ) -> None:
        self.backend, self.precision = deployed.backend, deployed.precision
        self._deployed, self._model, self._open, self._unseen = deployed, model, open_model, unseen
        self._twin = None if shows_stages else open_model(model)
        self.stages_of_twin = self._twin is not None and built_apart

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        outputs = self._deployed.run(images)
        return outputs if self._twin is None else {**self._twin.run(images), **outputs}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `Runner.bind`: the file alone, without the twin."""
        return self._deployed.bind(images)

    @property
    def module_names(self) -> set[str]:
        """Every PyTorch module that has a node in the graph."""
        return modules_with_nodes(self._model)

    def run_modules(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """What every PyTorch module computes, in the order the graph computes it; see `module_values`."""
        found = {name: value for name, value in module_values(self._model).items() if not name.endswith(self._unseen)}
        outputs = self._model.graph.outputs
        shown = list(outputs)
        known = {id(value) for value in shown}
        outputs.extend({id(v): v for v in found.values() if id(v) not in known}.values())
        try:
            values = self._open(self._model).run(images)
        finally:
            outputs[:] = shown
        return {module: values[str(value.name)] for module, value in found.items()}

    def failing_stage(self, images: NDArray[np.float32]) -> int | None:
        """The first stage whose tokens cannot be computed; None where each can."""
        for stage in tapped_stages(self._model):
            part = copy_model(self._model)
            tokens = tap_name(stage, "tokens")
            part.graph.outputs[:] = [value for value in part.graph.outputs if value.name == tokens]
            RemoveUnusedNodesPass()(part)  # a runtime may run what no output needs
            try:
                self._open(part).run(images)
            except CheckFailedError:
                return stage
        return None


class OpenedOnnx(Opened):
    """An ONNX model in ONNX Runtime with its stages in view, whether it has taps or not, and its modules on request.

    Args:
        source: a file, or a serialized model. One with external data is opened for each batch and closed after it,
            with its weights left in the file, for this machine may hold it only once.
        precision: what it is in, for tables.
        provider: where ONNX Runtime computes.

    Raises:
        InputError: not an ONNX file, or ONNX Runtime refuses it.
        MissingError: ONNX Runtime does not have the provider here.
    """

    def __init__(self, source: Path | bytes | LargeModel, precision: str = "fp32", provider: str = CPU) -> None:
        model = read_onnx(source) if isinstance(source, Path) else deserialize(source)
        large = not fits(model)

        def open_runner(content: Path | bytes | LargeModel) -> Runner:
            def opened() -> Runner:
                return OnnxRuntimeRunner(content, precision=precision, provider=provider, prepack=not large)

            return Reopened(opened) if large else opened()

        deployed = open_runner(source)
        super().__init__(
            deployed,
            model,
            lambda shown: open_runner(serialize(shown)),
            shows_stages=not show_taps(model),
            built_apart=False,
        )


def read_onnx(path: Path) -> ir.Model:
    """An ONNX file as an IR model.

    Raises:
        InputError: not an ONNX file.
    """
    require_file(path)
    try:
        model = ir.load(os.path.realpath(path))  # external data is beside the file itself, not beside a link to it
    except Exception as error:  # a damaged file can lead protobuf and onnx_ir anywhere
        raise InputError(f"{path} is not an ONNX file, or it is damaged.", _AGAIN) from error
    functions = model.functions.values()
    if not model.graph.outputs or not _is_whole(model.graph) or not all(_is_whole(body) for body in functions):
        raise InputError(f"{path} is not an ONNX file, or it is damaged.", _AGAIN)
    _require_beside(path, model)
    return model


def _is_whole(graph: ir.Graph | ir.Function) -> bool:
    """Whether every name is text and every value that a node reads comes from somewhere; onnx_ir loads others too."""
    known = {id(value) for value in graph.inputs}
    if isinstance(graph, ir.Graph):
        known |= {id(value) for value in graph.initializers.values()}
    for node in graph:
        read = [value for value in node.inputs if value is not None]
        if not all(value.producer() is not None or id(value) in known for value in read):
            return False
        names = [node.name or "", node.op_type, node.domain, *(value.name for value in (*read, *node.outputs))]
        if not all(isinstance(name, str) for name in names):
            return False
    return all(isinstance(value.name, str) for value in graph.outputs)


def _require_beside(path: Path, model: ir.Model) -> None:
    """Raises InputError where a weight would be read from outside the model's folder, through a link too."""
    folder = os.path.realpath(os.path.dirname(os.path.realpath(path)))  # noqa: PTH120 - the real file's
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        location = str(tensor.location)
        if os.path.commonpath([folder, os.path.realpath(os.path.join(folder, location))]) != folder:  # noqa: PTH118
            raise InputError(f"{path} would read weights from {location}, which is not beside it.", _AGAIN)
