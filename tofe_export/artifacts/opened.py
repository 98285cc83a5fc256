"""A deployed model with its inside in view: its outputs are its own, stages and modules those of a twin."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from tofe_export.errors import CheckFailedError
from tofe_export.graph.modules import module_values, modules_with_nodes
from tofe_export.graph.passes.taps import show_taps, tap_name, tapped_stages
from tofe_export.graph.stored import copy_model, deserialize, fits, read_onnx, serialize
from tofe_export.runners.base import Array, LargeModel, Runner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner
from tofe_export.runners.wrapped import Reopened

_ENOUGH = 16  # images, after which a twin of the same graph stands for the file
_ROUNDING = 1e-5  # of the largest value; a tenth of the tolerance of float32


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
        self._trusts_twin = not built_apart
        self._agreed = 0  # images on which file and twin returned the same

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`.

        The twin of an ONNX file is the same graph with more outputs. Once both have returned the same for a few images,
        up to rounding, the twin runs the others alone; where they once differ, both run them all, and what is judged is
        always the file's own.
        """
        if self._twin is None:
            return self._deployed.run(images)
        shown = self._twin.run(images)
        if self._trusts_twin and self._agreed >= _ENOUGH:
            return shown
        outputs = self._deployed.run(images)
        self._trusts_twin = self._trusts_twin and all(_same(shown[name], outputs[name]) for name in outputs)
        self._agreed += len(images)
        return {**shown, **outputs}

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
        model: its graph, which gets taps; None parses the source.
        precision: what it is in, for tables.
        provider: where ONNX Runtime computes.

    Raises:
        InputError: not an ONNX file, or ONNX Runtime refuses it.
        MissingError: ONNX Runtime does not have the provider here.
    """

    def __init__(
        self,
        source: Path | bytes | LargeModel,
        model: ir.Model | None = None,
        precision: str = "fp32",
        provider: str = CPU,
    ) -> None:
        if model is None:
            model = read_onnx(source) if isinstance(source, Path) else deserialize(source)
        small = fits(model)

        def open_runner(content: Path | bytes | LargeModel) -> Runner:
            opened = partial(OnnxRuntimeRunner, content, precision=precision, provider=provider, prepack=small)
            return opened() if small else Reopened(opened)

        deployed, shows_stages = open_runner(source), not show_taps(model)
        super().__init__(deployed, model, lambda shown: open_runner(serialize(shown)), shows_stages, built_apart=False)


def _same(twin: Array, deployed: Array) -> bool:
    """Whether two outputs are finite and equal up to what a fused kernel rounds otherwise."""
    scale = float(np.abs(deployed).max(initial=0.0))
    return bool(np.isfinite(scale) and np.allclose(twin, deployed, rtol=0.0, atol=_ROUNDING * scale))
