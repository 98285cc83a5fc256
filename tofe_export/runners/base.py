"""The protocol that verify and bench speak; PyTorch and ONNX Runtime stand behind it."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
LOGITS = "logits"


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
            Outputs by name; "logits" float32 [B, classes] is always among them.
        """
        ...
