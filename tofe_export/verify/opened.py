"""A deployed model with its inside in view: the logits are the file's own, the stages those of a twin with taps."""

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
from tofe_export.graph.passes.taps import show_taps
from tofe_export.runners.base import Array
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

_AGAIN = "Export it again with tofe-export onnx."


class OpenedOnnx:
    """A `Runner` on an ONNX model that also returns per-stage scores, perm and tokens, whether it has taps or not.

    Args:
        source: a file, or a serialized model.
        precision: what it is in, for tables.

    Raises:
        InputError: not an ONNX file, or ONNX Runtime refuses it.
    """

    backend = "onnxruntime"

    def __init__(self, source: Path | bytes, precision: str = "fp32") -> None:
        self.precision = precision
        model = read_onnx(source) if isinstance(source, Path) else ir.from_proto(onnx.load_from_string(source))
        self._file = OnnxRuntimeRunner(source)
        hidden = show_taps(model)
        self._twin = OnnxRuntimeRunner(ir.to_proto(model).SerializeToString()) if hidden else None

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        outputs = self._file.run(images)
        return outputs if self._twin is None else {**self._twin.run(images), **outputs}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `Runner.bind`: the file alone, without the twin."""
        return self._file.bind(images)


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
