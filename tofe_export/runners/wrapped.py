"""Runners around other runners."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tofe_export.runners.base import Array, Runner


class Padded:
    """Repeats the last image of a batch that is smaller than `least`, and cuts the outputs. A `Runner`."""

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


class Reopened:
    """Opens its runner for each batch and closes it afterwards: memory holds one large model at a time. A `Runner`.

    Args:
        open_runner: called once at the start too, so that a model that cannot be loaded is known at once.
    """

    def __init__(self, open_runner: Callable[[], Runner]) -> None:
        self._open = open_runner
        runner = open_runner()
        self.backend, self.precision = runner.backend, runner.precision

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        return self._open().run(images)
