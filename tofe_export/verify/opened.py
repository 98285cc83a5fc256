"""A deployed model with its inside in view: the outputs are the file's own, the stages those of a twin with taps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from tofe_export.artifacts.files import require_file
from tofe_export.errors import InputError
from tofe_export.graph.modules import module_values, modules_with_nodes
from tofe_export.graph.passes.taps import show_taps
from tofe_export.runners.base import Array, Runner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner

_AGAIN = "Export it again with tofe-export onnx."


class Opened:
    """A `Runner` that adds what a twin with taps shows to what the deployed file itself returns.

    Args:
        deployed: the file that is judged.
        twin: the same model with its stages in view; None where the file shows them itself.
    """

    def __init__(self, deployed: Runner, twin: Runner | None) -> None:
        self.backend, self.precision = deployed.backend, deployed.precision
        self._deployed, self._twin = deployed, twin

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        outputs = self._deployed.run(images)
        return outputs if self._twin is None else {**self._twin.run(images), **outputs}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `Runner.bind`: the file alone, without the twin."""
        return self._deployed.bind(images)


class OpenedOnnx(Opened):
    """An ONNX model in ONNX Runtime with its stages in view, whether it has taps or not, and its modules on request.

    Args:
        source: a file, or a serialized model.
        precision: what it is in, for tables.
        provider: where ONNX Runtime computes.

    Raises:
        InputError: not an ONNX file, or ONNX Runtime refuses it.
        MissingError: ONNX Runtime does not have the provider here.
    """

    def __init__(self, source: Path | bytes, precision: str = "fp32", provider: str = CPU) -> None:
        self._model = read_onnx(source) if isinstance(source, Path) else ir.from_proto(onnx.load_from_string(source))
        self._provider = provider
        deployed = OnnxRuntimeRunner(source, precision=precision, provider=provider)
        super().__init__(deployed, self._session() if show_taps(self._model) else None)

    @property
    def module_names(self) -> set[str]:
        """Every PyTorch module that has a node in the graph."""
        return modules_with_nodes(self._model)

    def run_modules(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """What every PyTorch module computes, in the order the graph computes it; see `module_values`."""
        found = module_values(self._model)
        shown = list(self._model.graph.outputs)
        known = {id(value) for value in shown}
        self._model.graph.outputs.extend({id(v): v for v in found.values() if id(v) not in known}.values())
        try:
            outputs = self._session().run(images)
        finally:
            self._model.graph.outputs[:] = shown
        return {module: outputs[str(value.name)] for module, value in found.items()}

    def _session(self) -> OnnxRuntimeRunner:
        content = ir.to_proto(self._model).SerializeToString()
        return OnnxRuntimeRunner(content, provider=self._provider)


def read_onnx(path: Path) -> ir.Model:
    """An ONNX file as an IR model.

    Raises:
        InputError: not an ONNX file.
    """
    require_file(path)
    try:
        model = ir.load(path)
    except (DecodeError, ValueError, OSError) as error:
        raise InputError(f"{path} is not an ONNX file, or it is damaged.", _AGAIN) from error
    if not model.graph.outputs:
        raise InputError(f"{path} is not an ONNX file, or it is damaged.", _AGAIN)
    return model
