"""OpenVINO on the CPU, Intel's and AMD's alike (OpenVINO documentation, CPU device)."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from tofe_export.documents.machine import processors
from tofe_export.errors import CheckFailedError, InputError, MissingError
from tofe_export.files.names import is_text
from tofe_export.runners.base import Array

Arithmetic = Literal["fp32", "bf16"]
_HINTS: dict[Arithmetic, str] = {"fp32": "f32", "bf16": "bf16"}
_AGAIN = "Optimize it again from the file that was exported."
_TELEMETRY = "openvino_telemetry"


class OpenVinoRunner:
    """An ONNX file compiled by OpenVINO for this processor.

    Args:
        model: a file, or a serialized model, without model-local functions.
        threads: None means the processors this process may use.
        precision: what the model is in, for tables.
        arithmetic: what values that are float32 in the file are computed in. It is always said, for by itself OpenVINO
            takes BF16 where a processor has it.

    Raises:
        MissingError: OpenVINO is not installed, or this processor does not compute in BF16.
        InputError: OpenVINO refuses the model.
    """

    backend = "openvino"

    def __init__(
        self,
        model: Path | bytes,
        threads: int | None = None,
        precision: str = "fp32",
        arithmetic: Arithmetic = "fp32",
    ) -> None:
        self.precision = precision
        core = openvino_core()
        require_arithmetic(arithmetic)
        self._name = str(model) if isinstance(model, Path) else "the model"
        source = os.path.realpath(model) if isinstance(model, Path) and is_text(model) else None
        content = model if isinstance(model, bytes) else None if source else model.read_bytes()
        # More streams would share the processors among several batches at a time.
        self._config = {
            "INFERENCE_PRECISION_HINT": _HINTS[arithmetic],
            "INFERENCE_NUM_THREADS": threads or processors(),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self.outputs = [str(value.name) for value in _header(source or content).graph.output]
            self._model = core.read_model(source or content)
            self._compiled = core.compile_model(self._model, "CPU", self._config)
        except Exception as error:  # RuntimeError and types of its own
            raise InputError(
                f"OpenVINO cannot load {self._name}. It says: {_reason(error)}",
                _AGAIN,
                code="openvino-refuses",
                path=self._name,
            ) from error
        if len(self._model.inputs) != 1 or len(self._model.outputs) != len(self.outputs):
            raise InputError(
                f"{self._name} does not have one input, or not the outputs that it names.",
                _AGAIN,
                code="openvino-refuses",
                path=self._name,
            )
        self._request = self._compiled.create_infer_request()

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`.

        Raises:
            InputError: the images do not have the shape the model was exported for.
            CheckFailedError: OpenVINO fails on them.
        """
        self._require_shape(images)
        return self._run(self._request, images)

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `TimedRunner.bind`: compiled for this batch size, as a deployment with a known one is."""
        self._require_shape(images)
        fixed = self._model.clone()
        try:
            fixed.reshape(list(images.shape))
            request = openvino_core().compile_model(fixed, "CPU", self._config).create_infer_request()
        except RuntimeError as error:
            raise _failure(images, error) from error
        return lambda: self._run(request, images)

    def _run(self, request: Any, images: NDArray[np.float32]) -> dict[str, Array]:
        """Outputs in the order of the file: OpenVINO gives a value every name that it had on its way."""
        try:
            values = request.infer([images], share_inputs=True).values()
        except RuntimeError as error:
            raise _failure(images, error) from error
        return dict(zip(self.outputs, values, strict=True))

    def _require_shape(self, images: NDArray[np.float32]) -> None:
        expected = self._model.input(0).partial_shape
        if not expected.compatible(type(expected)(list(images.shape))):
            raise InputError(
                f"The model takes images of shape {expected}, not {list(images.shape)}.",
                "Take images of that size, and the checkpoint it came from.",
                code="images-shape",
                expected=str(expected),
                given=list(images.shape),
            )


def _failure(images: NDArray[np.float32], error: RuntimeError) -> CheckFailedError:
    return CheckFailedError(
        f"The model does not run on {images.shape[0]} images. OpenVINO says: {_reason(error)}",
        "If a batch size is fixed in it, export it again from its checkpoint.",
        code="model-does-not-run",
        batch=images.shape[0],
    )


def import_openvino() -> Any:
    """The package, which is an extra. Raises MissingError where it is not installed."""
    try:
        with _without_telemetry():
            import openvino  # noqa: PLC0415 - an extra: its absence is an error in words, not at import
    except ImportError as error:
        raise MissingError(
            "OpenVINO is not installed.", "pip install 'tofe-export[openvino]'", code="openvino-missing"
        ) from error
    return openvino


@functools.cache
def openvino_core() -> Any:
    """The only `openvino.Core` of this process, which is never released. Raises MissingError as `import_openvino` does.

    A core that compiles replaces the stack of signal handlers and puts the former one back when it is released. With
    two that are released in the order in which they were made, what is put back is freed memory, and the next
    signal with a handler of Python's (Ctrl-C, for example) ends the process with SIGSEGV.
    """
    return import_openvino().Core()


@contextlib.contextmanager
def _without_telemetry() -> Iterator[None]:
    """When it is imported, OpenVINO reports that to Google Analytics and writes an identifier into the user's home.

    Without the package that does it, which is not there for as long as this lasts, it does neither.
    """
    if {_TELEMETRY, "openvino"} & sys.modules.keys():
        yield
        return
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[_TELEMETRY]


def has_bf16() -> bool:
    """Whether OpenVINO computes in BF16 on this processor. Raises MissingError where it is not installed."""
    return "BF16" in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def require_arithmetic(arithmetic: Arithmetic) -> None:
    """Raises MissingError where OpenVINO is not installed, or does not compute so on this processor."""
    import_openvino()
    if arithmetic == "bf16" and not has_bf16():
        raise MissingError(
            "This processor does not compute in BF16.",
            "Use a processor with AVX512_BF16 or AMX, or optimize the model for float32.",
            code="no-bf16",
        )


def _header(source: str | bytes | None) -> onnx.ModelProto:
    """The model without weights that lie outside."""
    assert source is not None
    return onnx.load_from_string(source) if isinstance(source, bytes) else onnx.load(source, load_external_data=False)


def _reason(error: Exception) -> str:
    """The last line of OpenVINO's message that says something, without places in its source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and not line.startswith("Exception from")]
    return (lines[-1] if lines else type(error).__name__)[:300]
