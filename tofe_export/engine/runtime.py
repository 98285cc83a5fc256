"""A built engine in use: loaded, bound to PyTorch tensors, run, captured in a CUDA graph. Needs an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tofe_export.artifacts.commands import command
from tofe_export.artifacts.manifest import read_manifest
from tofe_export.engine.backend import Backend, gpu_present, open_backend
from tofe_export.engine.callbacks import Log, make_logger
from tofe_export.errors import InputError, MissingError
from tofe_export.runners.base import Array

_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16, "BF16": torch.bfloat16, "INT32": torch.int32}
_WARM_UP = 3  # runs before a capture: the first ones allocate and choose kernels


class EngineSession:
    """An engine on the current CUDA device. A `Runner`.

    Args:
        content: the serialized engine.
        backend: the TensorRT that built it.
        precision: for the record, "fp16".

    Raises:
        MissingError: no GPU, or this TensorRT does not take the engine here.
    """

    def __init__(self, content: bytes, backend: Backend, precision: str) -> None:
        require_gpu()
        self.backend, self.precision = backend.name, precision
        self._log = Log()
        self._trt = backend.module
        self._runtime = self._trt.Runtime(make_logger(self._trt, self._log))
        if hasattr(self._runtime, "engine_host_code_allowed"):
            self._runtime.engine_host_code_allowed = True  # version-compatible engines carry their own runtime
        self._engine = self._runtime.deserialize_cuda_engine(content)
        if self._engine is None:
            raise MissingError(
                f"{self._trt.__name__} {backend.version} does not load the engine here: {self._log.first_error()}",
                "Build it on this machine with tofe-export trt.",
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
        return {name: _numpy(value) for name, value in values.items()}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `Runner.bind`: the batch lies on the GPU, and a run is the replay of a CUDA graph, as trtexec times it.

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

        # The graph knows addresses only: what lies there must live as long as the graph does.
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
                "Build it with another --batch MIN:OPT:MAX.",
            )
        with torch.cuda.stream(self._stream):
            source = in_one_piece(images).cuda()
            self._context.set_input_shape(self._input, shape)
            self._context.set_tensor_address(self._input, source.data_ptr())
            values = {name: self._output(name) for name in self._outputs}
        self._stream.synchronize()

        def execute(kept: Tensor = source) -> None:  # the input must outlive the runs
            if not self._context.execute_async_v3(self._stream.cuda_stream):
                raise MissingError(f"The engine did not run: {self._log.first_error()}", "Build it again.")

        return values, execute

    def _output(self, name: str) -> Tensor:
        shape = tuple(self._context.get_tensor_shape(name))
        tensor = torch.empty(shape, dtype=_DTYPES[self._engine.get_tensor_dtype(name).name], device="cuda")
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor


def in_one_piece(images: NDArray[np.float32]) -> Tensor:
    """The images as a tensor whose rows follow each other in memory, which is all that an address tells an engine."""
    return torch.from_numpy(np.ascontiguousarray(images, dtype=np.float32))


def _numpy(value: Tensor) -> Array:
    """NumPy knows no bfloat16."""
    host = value.cpu()
    return host.float().numpy() if host.dtype == torch.bfloat16 else host.numpy()


def load_engine(path: Path) -> EngineSession:
    """Loads an engine after comparing it with its manifest.

    Raises:
        InputError: no engine, no manifest, or a file that was changed, cut off or replaced.
        MissingError: another TensorRT version, another GPU, or no GPU.
    """
    manifest = read_manifest(path)
    if manifest["kind"] != "engine":
        raise InputError(f"{path} is no engine but an {manifest['kind']} file.", "Build one with tofe-export trt.")
    built_with = manifest["backend"]
    backend = open_backend(built_with["name"])
    options = manifest["options"]
    if backend.version != built_with["version"] and not options["version_compatible"]:
        raise MissingError(
            f"{path} was built by {backend.module.__name__} {built_with['version']}; installed is {backend.version}.",
            f"Build it again: {_build(path, manifest)}",
        )
    require_gpu()
    here = torch.cuda.get_device_name()
    if built_with["gpu"] not in (None, here) and backend.name == "tensorrt" and options["hardware"] == "none":
        raise MissingError(
            f"{path} was built for {built_with['gpu']}; this machine has {here}.",
            f"Build it here: {_build(path, manifest)}",
        )
    return EngineSession(path.read_bytes(), backend, manifest["precision"])


def _build(path: Path, manifest: dict[str, Any]) -> str:
    """The command that builds an engine anew: in its precision, for its batch sizes."""
    options = manifest["options"]
    precision, batch = options.get("precision", "fp32"), options.get("batch")
    return command(
        *("trt", path.with_name(str(manifest["source"]["file"])), "-o", path),
        *(() if precision == "fp32" else (f"--{precision}",)),
        *(("--batch", batch) if isinstance(batch, str) else ()),
    )


def require_gpu() -> None:
    """Raises MissingError unless PyTorch can use a GPU."""
    if not gpu_present():
        raise MissingError(
            "An engine runs on an NVIDIA GPU only, and PyTorch finds none here.",
            "Take the ONNX file it was built from, or a machine with a GPU.",
        )
