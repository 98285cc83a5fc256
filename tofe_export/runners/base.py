"""The protocol that verify and bench speak; PyTorch, ONNX Runtime and TensorRT stand behind it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LOGITS = "logits"
FEATURES = "features"
"""Names of a deployed model's outputs; either or both are there."""


@dataclass(frozen=True)
class LargeModel:
    """A serialized ONNX model that is too large for one protobuf message.

    Attributes:
        graph: its bytes, in which the larger weights are external.
        weights: those, by name; `onnx_ir` tensors, in memory or (`ExternalTensor`) in a file beside the model.
    """

    graph: bytes
    weights: Mapping[str, Any]


def in_host_memory(backend: str) -> bool:
    """Whether what `TimedRunner.bind` of a backend times goes from host memory to host memory.

    PyTorch, ONNX Runtime and OpenVINO on the CPU do. Everything on a GPU finds its batch in GPU memory and leaves its
    outputs there, so that no copy is timed; an engine's run is the replay of a CUDA graph besides.
    """
    return backend in ("torch", "onnxruntime", "openvino")


class Runner(Protocol):
    """A loaded model on a backend.

    Attributes:
        backend: "torch", "onnxruntime", ...
        precision: "fp32", ...
    """

    backend: str
    precision: str

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """Runs one batch.

        Args:
            images: float32 [B, D, H, W], preprocessed.

        Returns:
            Outputs by name: "logits" float32 [B, classes], "features" float32 [B, N, C] (patch tokens in spatial
            order), or both; and the tapped values where the model shows them.
        """
        ...


class TimedRunner(Runner, Protocol):
    """A runner that can be timed."""

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """A function that runs a batch, as in `run`, once and returns when the result is there.

        See `in_host_memory` for where that is.
        """
        ...
