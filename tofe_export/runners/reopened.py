"""A runner for models so large that memory holds one of them at a time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from tofe_export.runners.base import Array, Runner


class Reopened:
    """Opens its runner for each batch and closes it afterwards. A `Runner`.

    Args:
        open_runner: makes it; called once at the start too, so that a model that cannot be loaded is known at once.
    """

    def __init__(self, open_runner: Callable[[], Runner]) -> None:
        self._open = open_runner
        runner = open_runner()
        self.backend, self.precision = runner.backend, runner.precision

    def run(self, images: NDArray[np.float32]) -> dict[str, Array]:
        """See `Runner.run`."""
        return self._open().run(images)

    def bind(self, images: NDArray[np.float32]) -> Callable[[], object]:
        """See `Runner.bind`; from here on it stays open."""
        return self._open().bind(images)
