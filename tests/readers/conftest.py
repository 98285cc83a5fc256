"""One small network as the readers get it: a file with functions, the same in standard operators, what is expected."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("NNCF_CI", "1")  # its switch: without it NNCF sends statistics as soon as it quantizes

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import SMALL_KEEP, small_images, small_tofe
from tests.readers.comparing import run_in_onnxruntime
from tofe_export.graph.export import export_tofe
from tofe_export.graph.targets import rewrite_for
from tofe_export.runners.base import Array


@dataclass(frozen=True)
class Written:
    """A network with taps, in two files; what ONNX Runtime computes of the first."""

    portable: Path
    inlined: Path
    images: Array
    expected: Mapping[str, Array]


@pytest.fixture(scope="session", params=["plugin", "elide"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp(request.param)
    graph = export_tofe(small_tofe(), SMALL_KEEP, request.param == "plugin", taps=True)
    ir.save(graph, folder / "portable.onnx")
    assert rewrite_for(graph, "any") == {"inline": 5 if request.param == "plugin" else 3}
    ir.save(graph, folder / "inlined.onnx")
    images: Array = small_images(3).numpy()
    expected = run_in_onnxruntime(folder / "portable.onnx", {"images": images})
    perms = [value for name, value in expected.items() if name.endswith(".perm")]
    assert len(perms) == 3
    assert not any(np.array_equal(perm, np.sort(perm, 1)) for perm in perms), "in this order a mistake would not show"
    return Written(folder / "portable.onnx", folder / "inlined.onnx", images, expected)
