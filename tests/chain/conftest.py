"""How many random configurations: 200 in all by default, always the same ones; more and new ones by option."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

PARTS = 8
"""How the configurations are shared among tests; see `configurations.SHARES`."""


@pytest.fixture(scope="session")
def examples(request: pytest.FixtureRequest) -> int | None:
    """How many a part; None for the default ones."""
    wanted = request.config.getoption("--examples")
    return None if wanted is None else max(1, -(-int(wanted) // PARTS))


@pytest.fixture(scope="module")
def fast_export() -> Iterator[None]:
    """Traces in less time, by what does not show in the file."""
    made = functools.cache(ONNXRegistry.from_torchlib)

    def from_torchlib(opset_version: int = 18) -> ONNXRegistry:
        return made(opset_version)

    thresholds = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch:
        # torch.onnx.export reads the signatures of 600 operators again at each call. Nobody here registers others.
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(from_torchlib))
        gc.set_threshold(100_000, 50, 100)  # a trace makes many objects that live until its end
        try:
            yield
        finally:
            gc.set_threshold(*thresholds)
