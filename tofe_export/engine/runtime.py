"""Runs a built engine: loads it, binds it to PyTorch tensors, captures it in a CUDA graph. Requires an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tofe_export.engine.backend import Backend, gpu_present
from tofe_export.engine.callbacks import Log, make_logger
from tofe_export.errors import InputError, MissingError
from tofe_export.runners.base import Array

_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32}
_WARM_UP = 3  # runs before a capture: the first ones allocate and choose kernels


class EngineSession:
    """A serialized engine, built by `backend` in `precision`, on the current CUDA device. A `TimedRunner`.

    Raises:
        MissingError: no GPU, not one for this TensorRT, or this TensorRT does not take the engine here.
    """

    def __init__(self, content: bytes, backend: Backend, precision: str) -> None:
        require_gpu()
        if backend.obstacle:
            raise MissingError(
                f"{backend.obstacle}.",
                "Run the ONNX file that it was built from in ONNX Runtime, or build for TensorRT.",
                code="gpu-unsupported",
            )
        self.backend: str = backend.name
        self.precision = precision
        self._log = Log()
        self._trt = backend.module
        self._runtime = self._trt.Runtime(make_logger(self._trt, self._log))
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # version-compatible engines carry their own runtime
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise MissingError(
                f"{self._trt.__name__} {backend.version} does not load the engine here: {self._log.first_error()}",
                "Build it on this machine.",
                code="engine-load",
            )
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        is_input = self._trt.TensorIOMode.INPUT
        self._input = next(name for name in names if self._engine.get_tensor_mode(name) == is_input)
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) != is_input]
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`; the images are copied to the GPU and the outputs back.

        Raises:
            InputError: the batch is outside the engine's profile, or the images have another shape.
        """
        values, execute = self._bind(images)
        execute()
        self._stream.synchronize()
        wide = {n: value.float() if value.dtype == torch.bfloat16 else value for n, value in values.items()}
        return {name: value.cpu().numpy() for name, value in wide.items()}  # NumPy knows no bfloat16

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `TimedRunner.bind`: the batch lies on the GPU, and a run replays a CUDA graph, as trtexec times it.

        Raises:
            InputError: see `run`.
        """
        values, execute = self._bind(images)
        for _ in range(_WARM_UP):
            execute()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
            execute()

        def replay() -> dict[str, Tensor]:
            graph.replay()
            torch.cuda.synchronize()
            return values

        # The graph holds addresses only: the memory behind them must live as long as the graph does.
        replay.kept = (values, execute)  # type: ignore[attr-defined]
        return replay

    def information(self) -> str:
        """The engine inspector's JSON about every layer."""
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def _bind(self, images: NDArray[np.float32]) -> tuple[dict[str, Tensor], Callable[[], None]]:
        """The outputs' tensors, and a function that starts a run on the session's stream."""
        least, _, most = self._engine.get_tensor_profile_shape(self._input, 0)
        shape = tuple(images.shape)
        if len(shape) != len(least) or not all(
            low <= n <= high for low, n, high in zip(least, shape, most, strict=True)
        ):
            raise InputError(
                f"The engine takes images of shape {list(least)} to {list(most)}, not {list(shape)}.",
                "Build it with another `batch`.",
                code="image-shape",
            )
        with torch.cuda.stream(self._stream):
            source = in_one_piece(images).cuda()
            self._context.set_input_shape(self._input, shape)
            self._context.set_tensor_address(self._input, source.data_ptr())
            values = {name: self._output(name) for name in self._outputs}
        self._stream.synchronize()

        def execute(kept: Tensor = source) -> None:  # the input must outlive the runs
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise MissingError(
                    f"The engine did not run: {self._log.first_error()}", "Build it again.", code="engine-run"
                )

        return values, execute

    def _output(self, name: str) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        tensor = torch.empty(shape, dtype=_DTYPES[self._engine.get_tensor_dtype(name).name], device="cuda")
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor


def in_one_piece(images: NDArray[np.float32]) -> Tensor:
    """The images as a contiguous tensor: an engine gets an address only, and no strides."""
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def require_gpu() -> None:
    """Raises MissingError unless PyTorch can use a GPU."""
    if not gpu_present():
        raise MissingError(
            "An engine runs on an NVIDIA GPU only, and PyTorch finds none here.",
            "Use the ONNX file it was built from, or a machine with a GPU.",
            code="gpu-missing",
        )
