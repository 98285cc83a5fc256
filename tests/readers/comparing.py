"""What every reader must compute: the selection exactly, and numbers to the last digits of float32."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from tofe_export.runners.base import Array
from tofe_export.runners.openvino_runner import openvino_core

DIGITS = 2e-5
"""Largest difference in any output; outputs of the small network are up to about 10."""


def require_same(expected: Mapping[str, Array], found: Mapping[str, Array]) -> None:
    """The same outputs in the same order; `perm` is compared exactly, the others as numbers."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        if name.endswith("perm"):
            assert np.array_equal(found[name], value), name
        else:
            np.testing.assert_allclose(found[name], value, rtol=0, atol=DIGITS, err_msg=name)


def run_in_onnxruntime(model: Path | bytes, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs by name."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    source = model if isinstance(model, bytes) else str(model)
    session = ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def run_in_openvino(model: Path | bytes, feeds: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    """The outputs; OpenVINO gives them in the order of `names`, but forgets some of these."""
    core = openvino_core()
    source = model if isinstance(model, bytes) else str(model)
    config = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(source), "CPU", config)
    return dict(zip(names, compiled(dict(feeds)).values(), strict=True))


def run_in_tract(model: Path, feeds: Mapping[str, Array], names: list[str]) -> dict[str, Array]:
    """The outputs, in the order of `names`: tract gives them names of its own."""
    import tract

    loaded = tract.onnx().load(str(model))
    inputs = [loaded.input_name(index) for index in range(loaded.input_count())]
    outputs = loaded.into_model().into_runnable().run([feeds[name] for name in inputs])
    return {name: value.to_numpy() for name, value in zip(names, outputs, strict=True)}
