"""What an ONNX file goes through before it takes its place; Polygraphy as an independent second opinion."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, SimpleCompareFunc
from polygraphy.logger import G_LOGGER

from tests.helpers import exported_tofe, small_images
from tofe_export.artifacts.checks import ask_polygraphy, run_two_batches
from tofe_export.errors import CheckFailedError
from tofe_export.precision.half import to_half
from tofe_export.runners.base import Array

SHAPE = (3, 32, 32)


def written(model: ir.Model, folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(ir.to_proto(model), path)
    return path


def test_polygraphy_agrees_with_a_file_that_is_right(tmp_path: Path) -> None:
    path = written(exported_tofe(), tmp_path)
    outputs = run_two_batches(path, SHAPE)
    assert [one["logits"].shape for one in outputs] == [(1, 5), (3, 5)]
    ask_polygraphy(path, SHAPE, outputs)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda outputs: {"logits": outputs["logits"] + 1e-3},
        lambda outputs: {"logits": outputs["logits"][:, ::-1]},
        lambda outputs: {},
        lambda outputs: {**outputs, "features": outputs["logits"]},
    ],
    ids=["another value", "another order", "an output missing", "an output too many"],
)
def test_it_contradicts_a_runner_that_reads_the_file_wrongly(
    spoil: Callable[[dict[str, Array]], dict[str, Array]], tmp_path: Path
) -> None:
    path = written(exported_tofe(), tmp_path)
    outputs = run_two_batches(path, SHAPE)
    with pytest.raises(CheckFailedError) as caught:
        ask_polygraphy(path, SHAPE, [outputs[0], spoil(outputs[1])])
    assert caught.value.code == "second-opinion"
    assert caught.value.message.startswith("At batch 3 ")


def test_a_batch_size_that_is_fixed_and_values_that_are_not_finite(tmp_path: Path) -> None:
    model = exported_tofe()
    weight = model.graph.initializers["vit.head.bias"]
    assert weight.const_value is not None
    weight.const_value = ir.tensor(np.full_like(weight.const_value.numpy(), np.nan), name=weight.name)
    with pytest.raises(CheckFailedError) as caught:
        run_two_batches(written(model, tmp_path), SHAPE)
    assert (caught.value.code, caught.value.details["output"]) == ("outputs-not-finite", "logits")
    proto = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 20]> fixed (float[n, 3, 32, 32] images) => (float[1, 3, 1, 1] logits) '
        "<int64[1] axes = {0}> { means = ReduceMean (images, axes) logits = GlobalAveragePool (means) }"
    )
    onnx.save(proto, tmp_path / "fixed.onnx")
    with pytest.raises(CheckFailedError) as caught:
        run_two_batches(tmp_path / "fixed.onnx", SHAPE)
    assert (caught.value.code, caught.value.details["output"]) == ("batch-fixed", "logits")


@pytest.mark.parametrize("rearrange", [True, False], ids=["plugin", "elide"])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_file_means_the_same_without_any_optimization(precision: str, rearrange: bool, tmp_path: Path) -> None:
    """Without ONNX Runtime's fusions every node runs by itself; for INT8 see tests/precision/test_quantize.py."""
    model = exported_tofe(rearrange=rearrange)
    if precision == "fp16":
        to_half(model, "fp16")
    path = str(written(model, tmp_path))
    levels = onnxruntime.GraphOptimizationLevel
    runners = [
        OnnxrtRunner(SessionFromOnnx(path, graph_optimization_level=level), name=level.name)
        for level in (levels.ORT_ENABLE_ALL, levels.ORT_DISABLE_ALL)
    ]
    with G_LOGGER.verbosity(G_LOGGER.CRITICAL):
        results = Comparator.run(runners, data_loader=[{"images": small_images(8, seed).numpy()} for seed in (0, 1)])
        assert Comparator.validate(results, check_inf=True, check_nan=True)
        limit = 2e-2 if precision == "fp16" else 1e-4
        judge = SimpleCompareFunc(atol=limit, rtol=0.0, check_error_stat="max")
        assert Comparator.compare_accuracy(results, compare_func=judge)
