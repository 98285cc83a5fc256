"""One configuration through the whole chain: network, exported file, ONNX Runtime, comparison."""

from __future__ import annotations

import shlex
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from tests.chain.configurations import Configuration
from tests.helpers import small_images
from tofe_export.artifacts.opened import OpenedOnnx
from tofe_export.data.images import Batch
from tofe_export.graph.export import export_tofe
from tofe_export.graph.passes.taps import tap_name
from tofe_export.model.backbones import image_shape
from tofe_export.model.fixed_path import FixedPath
from tofe_export.parity.side_by_side import compare

__all__ = ["Configuration", "again", "check"]


class _Recorded(OpenedOnnx):
    """Remembers what it returned last, so that nothing need run twice."""

    def run(self, images: NDArray[np.float32]) -> dict[str, Any]:
        self.last = super().run(images)
        return self.last


def check(configuration: Configuration) -> None:
    """Raises, with the command that does it again, unless the exported file says the same as PyTorch."""
    try:
        _check(configuration)
    except Exception as error:
        error.add_note(f"Again: {again(configuration)}")
        raise


def again(configuration: Configuration) -> str:
    """A command that checks one configuration, from the root of the repository."""
    code = f"from tests.chain.check import *; check({configuration!r})"
    return f".venv/bin/python -c {shlex.quote(code)}"


def _check(it: Configuration) -> None:
    network = it.build()
    assert network.tokens == it.tokens
    exported = ir.to_proto(export_tofe(network, it.keep, it.rearrange, it.taps, it.outputs))
    onnx.checker.check_model(exported, full_check=True)
    choosing = [s for s, count in enumerate(it.keep) if count != network.arriving(it.keep)[s]]
    taps = [tap_name(stage, what) for stage in choosing for what in ("scores", "perm", "tokens")]
    assert [output.name for output in exported.graph.output] == [*it.outputs, *(taps if it.taps else [])]

    deployed = _Recorded(exported.SerializeToString())
    images = small_images(it.batch, it.network["seed"], image_shape(network.vit)[1:])
    names = tuple(map(str, range(it.batch)))
    found = compare(network, deployed, FixedPath(it.keep, it.rearrange), [Batch(images, None, names)], labelled=False)
    assert found.failures == []
    assert not found.stages_hidden
    assert found.samples == it.batch
    assert sorted(found.stages) == choosing

    # Once more without the comparison's own code: the same selection, the same numbers.
    chosen = {stage: torch.from_numpy(deployed.last[tap_name(stage, "perm")]) for stage in choosing}
    with torch.inference_mode():
        expected = network.forward_fixed(
            images, FixedPath(it.keep, it.rearrange, features="features" in it.outputs, selection=chosen)
        )
    for name in it.outputs:
        np.testing.assert_allclose(deployed.last[name], getattr(expected, name).numpy(), rtol=0, atol=1e-4)
