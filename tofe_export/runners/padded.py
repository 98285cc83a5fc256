"""A runner for any number of images, around one that requires a minimum."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tofe_export.runners.base import Array, Runner


class Padded:
    """Repeats the last image of a batch that is too small, and cuts the outputs. A `Runner`.

    Args:
        runner: what runs them.
        least: the smallest batch it takes.
    """

    def __init__(self, runner: Runner, least: int) -> None:
        self.backend, self.precision = runner.backend, runner.precision
        self._runner, self._least = runner, least

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        count = len(images)
        if count >= self._least:
            return self._runner.run(images)
        padded = np.concatenate([images, np.repeat(images[-1:], self._least - count, axis=0)])
        return {name: value[:count] for name, value in self._runner.run(padded).items()}

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `Runner.bind`; a timed batch is never padded."""
        return self._runner.bind(images)
