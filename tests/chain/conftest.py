"""Makes tracing cheaper by what does not show in the file: a third of the time of a small network's export."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry


@pytest.fixture(scope="module")
def fast_export() -> Iterator[None]:
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


@pytest.fixture
def examples(request: pytest.FixtureRequest) -> int | None:
    """How many new configurations are asked for; None for those that are the same in every run."""
    asked = request.config.getoption("--examples")
    assert asked is None or isinstance(asked, int)
    return asked
