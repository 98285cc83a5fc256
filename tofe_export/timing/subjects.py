"""What a fresh process must know to open a model and time it: a JSON object for each, that opens files and makes none.

A worker imports only what its own subjects need, so PyTorch stays out of a process that times ONNX files.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, InstanceOf, PlainSerializer

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Flag, NaturalNumber, Positive, Text
from tofe_export.documents.onnx_options import SessionSettings
from tofe_export.runners.base import Array, TimedRunner
from tofe_export.runners.onnxruntime_runner import CPU, OnnxRuntimeRunner, backend_of


def _as_path(value: Path | str) -> Path:
    return Path(value)


FilePath = Annotated[InstanceOf[Path], BeforeValidator(_as_path), PlainSerializer(str)]


class OnnxFile(Part):
    """An ONNX file in ONNX Runtime."""

    fixed_input: ClassVar[bool] = False
    kind: Literal["onnx"] = "onnx"
    path: FilePath
    threads: Positive
    precision: Text = "fp32"
    provider: Text = CPU
    session: SessionSettings | None = None

    @property
    def backend(self) -> str:
        """That of its runner."""
        return backend_of(self.provider)

    def open(self) -> TimedRunner:
        """See `OnnxRuntimeRunner` for what it raises."""
        return OnnxRuntimeRunner(self.path, self.threads, self.precision, self.provider, session=self.session)


class OpenVinoFile(Part):
    """An ONNX file in OpenVINO, compiled for each batch size; `arithmetic` as in `OpenVinoRunner`."""

    fixed_input: ClassVar[bool] = False
    backend: ClassVar[str] = "openvino"
    kind: Literal["openvino"] = "openvino"
    path: FilePath
    threads: Positive
    precision: Text = "fp32"
    arithmetic: Literal["fp32", "bf16"] = "fp32"

    def open(self) -> TimedRunner:
        """See `OpenVinoRunner` for what it raises."""
        from tofe_export.runners.openvino_runner import OpenVinoRunner  # noqa: PLC0415 - an extra

        return OpenVinoRunner(self.path, self.threads, self.precision, self.arithmetic)


class CheckpointFile(Part):
    """A checkpoint of this program in PyTorch: the fixed path with keep counts, or its dense backbone.

    The number of threads is that of the whole process.
    """

    fixed_input: ClassVar[bool] = False
    backend: ClassVar[str] = "torch"
    precision: ClassVar[str] = "fp32"
    kind: Literal["checkpoint"] = "checkpoint"
    path: FilePath
    threads: Positive
    keep: tuple[Positive, ...] = ()
    dense: Flag = False

    def open(self) -> TimedRunner:
        """See `checkpoint.load` for what it raises."""
        import torch  # noqa: PLC0415 - heavy, as are the next ones

        from tofe_export.checkpoints.checkpoint import load  # noqa: PLC0415
        from tofe_export.model.fixed_path import FixedPath  # noqa: PLC0415
        from tofe_export.runners.torch_runner import TorchRunner  # noqa: PLC0415

        torch.set_num_threads(self.threads)
        model = load(self.path).model
        if self.dense:
            return TorchRunner(model.vit)
        path = FixedPath(self.keep, rearranged=False)
        return TorchRunner(lambda images: model.forward_fixed(images, path).logits)


class EngineFile(Part):
    """An engine of the backend "tensorrt" or "rtx", which must fit this machine."""

    fixed_input: ClassVar[bool] = False
    kind: Literal["engine"] = "engine"
    path: FilePath
    backend: Text
    precision: Text

    def open(self) -> TimedRunner:
        """See `EngineSession` for what it raises."""
        from tofe_export.engine.backend import open_backend  # noqa: PLC0415 - heavy
        from tofe_export.engine.runtime import EngineSession  # noqa: PLC0415

        return EngineSession(self.path.read_bytes(), open_backend(self.backend), self.precision)


class OnnxProduct(Part):
    """One matrix product in ONNX Runtime or OpenVINO: what this machine can do at best, beside which models are set.

    Attributes:
        file: a graph with one input.
        shape, dtype: of the input, whatever batch the models get.
        macs: multiply-accumulates of a call.
    """

    fixed_input: ClassVar[bool] = True
    kind: Literal["onnx-product"] = "onnx-product"
    file: OnnxFile | OpenVinoFile
    shape: tuple[Positive, ...]
    dtype: Text
    macs: NaturalNumber

    def open(self) -> TimedRunner:
        """See `OnnxRuntimeRunner` for what it raises."""
        return _OnOwnInput(self.file.open(), np.ones(self.shape, self.dtype))


class TorchProduct(Part):
    """One matrix product in PyTorch, [rows, inner] times [inner, columns], in float32."""

    fixed_input: ClassVar[bool] = True
    kind: Literal["torch-product"] = "torch-product"
    rows: Positive
    inner: Positive
    columns: Positive
    threads: Positive

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a call."""
        return self.rows * self.inner * self.columns

    def open(self) -> TimedRunner:
        """A runner that ignores the models' images."""
        import torch  # noqa: PLC0415 - heavy

        from tofe_export.runners.torch_runner import TorchRunner  # noqa: PLC0415

        torch.set_num_threads(self.threads)
        right = torch.ones(self.inner, self.columns)
        left = np.ones((self.rows, self.inner), np.float32)
        return _OnOwnInput(TorchRunner(lambda images: torch.mm(images, right)), left)


AnyModel = OnnxFile | OpenVinoFile | CheckpointFile | EngineFile
"""`backend` and `precision` are those of the runner that `open` returns."""
AnySubject = Annotated[AnyModel | OnnxProduct | TorchProduct, Field(discriminator="kind")]
"""`fixed_input` says whether it gets an input of its own instead of each batch of images."""


class _OnOwnInput:
    """A `TimedRunner` that gets the same input, whatever it is given."""

    def __init__(self, runner: TimedRunner, given: Array) -> None:
        self.backend, self.precision = runner.backend, runner.precision
        self._runner, self._given = runner, given

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        return self._runner.run(self._given)

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `TimedRunner.bind`."""
        return self._runner.bind(self._given)
