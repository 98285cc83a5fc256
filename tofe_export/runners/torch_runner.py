"""PyTorch on the CPU: any function from images to logits, in inference mode."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tofe_export.runners.base import LOGITS, Array


class TorchRunner:
    """Runs `function` (images [B, D, H, W] -> logits [B, classes]) without gradients."""

    backend = "torch"
    precision = "fp32"

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self._function = function

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        with torch.inference_mode():
            return {LOGITS: self._function(torch.from_numpy(np.ascontiguousarray(images))).numpy()}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `TimedRunner.bind`."""
        return lambda: self.run(images)
