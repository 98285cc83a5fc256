"""FP16 and BF16 in the graph: valid, float32 where it matters, close to PyTorch."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from tests.helpers import TWO_KEEP, TWO_STAGES, VARIANTS, exported_tofe, sampled, small_images, small_tofe
from tofe_export.errors import InputError
from tofe_export.graph.passes.taps import show_taps
from tofe_export.model.fixed_path import FixedPath
from tofe_export.precision.half import HALVES, WeightTooLargeError, score_heads, to_half
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

FLOAT = ir.DataType.FLOAT


def checked(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    return proto.SerializeToString()


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_what_stays_in_float32(precision: str, selector: str) -> None:
    model = exported_tofe(selector, short=selector != "mlp")
    counts = to_half(model, precision)
    checked(model)
    half = HALVES[precision]
    assert counts[precision] > counts["fp32"] > 0
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.dtype == FLOAT
    for node in model.graph:
        if node.op_type in ("Softmax", "LayerNormalization"):
            assert {value.dtype for value in (*node.inputs, *node.outputs) if value is not None} == {FLOAT}
        if node.op_type == "TokenPartition":
            tokens, scores = node.inputs
            assert tokens is not None
            assert scores is not None
            assert (tokens.dtype, scores.dtype) == (half, FLOAT)
            producer = scores.producer()
            assert producer is not None
            assert all(value is None or value.dtype != half for value in producer.inputs), "no cast of a rounded score"
        if node.op_type == "MatMul" and "selector" not in (node.name or ""):
            assert node.outputs[0].dtype == half
    weights = [value for value in model.graph.initializers.values() if "mlp.fc1.weight" in (value.name or "")]
    assert weights
    assert {value.dtype for value in weights} == {half}


@pytest.mark.parametrize(("selector", "approximator", "rearrange"), sampled(VARIANTS, 2))
def test_fp16_runs_and_stays_close(selector: str, approximator: str, rearrange: bool) -> None:
    network = small_tofe(selector=selector, approximator=approximator, **TWO_STAGES)
    images = small_images(3, 7)
    model = exported_tofe(selector, approximator, rearrange, short=True)
    to_half(model, "fp16")
    show_taps(model)
    outputs = OnnxRuntimeRunner(checked(model)).run(images.numpy())
    selection = {
        trace: torch.from_numpy(outputs[f"stage{trace}.perm"]) for trace in range(2) if f"stage{trace}.perm" in outputs
    }
    with torch.inference_mode():
        expected = network.forward_fixed(images, FixedPath(TWO_KEEP, rearrange, selection=selection)).logits.numpy()
    assert outputs["logits"].dtype == np.float32
    assert np.abs(outputs["logits"] - expected).max() <= 2e-2 * max(1.0, float(np.abs(expected).max()))
    for name in (name for name in outputs if name.endswith(".scores")):
        assert outputs[name].dtype == np.float32
        assert len(np.unique(outputs[name])) > 0.9 * outputs[name].size, "rounded scores would tie"


def test_the_score_heads_are_the_linear_ends_of_the_selectors() -> None:
    graph = exported_tofe().graph
    heads = score_heads(graph)
    names = {node.name for node in graph if id(node) in heads}
    assert names
    assert all("selector" in (name or "") for name in names)
    assert not any("Gelu" in (name or "") for name in names)


def test_a_weight_beyond_fp16_is_named() -> None:
    for precision in ("fp16", "bf16"):
        model = exported_tofe()
        weight = model.graph.initializers["vit.blocks.2.mlp.fc1.weight.T"]
        assert weight.const_value is not None
        values = np.array(weight.const_value.numpy())
        values[0, 0] = 1e5
        weight.const_value = ir.tensor(values, name=weight.name)
        if precision == "bf16":
            to_half(model, precision)
        else:
            with pytest.raises(WeightTooLargeError, match=r"has values up to 1e\+05") as caught:
                to_half(model, precision)
            assert (caught.value.code, caught.value.details["weight"]) == ("weight-too-large", weight.name)


def test_a_graph_is_turned_once() -> None:
    model = exported_tofe()
    to_half(model, "fp16")
    with pytest.raises(InputError) as caught:
        to_half(model, "bf16")
    assert caught.value.code == "not-float32"


COUNTING = """
<ir_version: 10, opset_import: ["": 20]>
counting (float[n, 4] images) => (float[n, 4] scaled, float[m] numbers, float[n, 4] powers, int64[n, 4] whole)
<float[4, 4] weight = {2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2, 0, 0, 0, 0, 2}, int64 many = {4099}, int64 few = {3}>
{
    as_float = Cast <to = 1> (many)
    none = Cast <to = 1> (few)
    step = Constant <value_float = 1365.5> ()
    numbers = Range (none, as_float, step)
    product = MatMul (images, weight)
    scaled = Mul (product, as_float)
    powers = Pow (images, none)
    whole = Cast <to = 7> (powers)
}
"""


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_integers_that_become_floats_keep_their_value(precision: str) -> None:
    proto = onnx.parser.parse_model(COUNTING)
    images = np.array([[1, 2, 3, 17]], np.float32)
    original = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    model = ir.from_proto(onnx.shape_inference.infer_shapes(proto))
    to_half(model, precision)
    if precision == "bf16":  # ONNX Runtime has no CPU kernels for the products; types and checker still tell
        checked(model)
        return
    expected, found = (OnnxRuntimeRunner(content).run(images) for content in (checked(original), checked(model)))
    assert found["numbers"].tolist() == [3.0, 1368.5, 2734.0], "FP16 holds neither 4099 nor 1365.5"
    assert found["powers"].tolist() == [[1.0, 8.0, 27.0, 4913.0]]
    assert found["whole"].tolist() == [[1, 8, 27, 4913]]
    assert np.allclose(found["scaled"], expected["scaled"], rtol=2e-3)
    assert all(value.dtype == expected[name].dtype for name, value in found.items())


def test_too_large_a_weight_is_told_from_other_refusals() -> None:
    model = exported_tofe()
    to_half(model, "fp16")
    with pytest.raises(InputError) as other:
        to_half(model, "fp16")
    assert not isinstance(other.value, WeightTooLargeError)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(
    "call",
    [
        "Softmax (product)",
        "LayerNormalization (product, weight)",
        "ReduceMean (product)",
        "ReduceSum (product)",
        "Exp (product)",
        "Log (product)",
        "Pow (product, product)",
        "Sqrt (product)",
    ],
)
def test_sums_and_powers_are_computed_in_float32(call: str, precision: str) -> None:
    model = parsed(
        f"one (float[2, 4] images) => (float[?, ?] out) <float[4] weight = {{1, 1, 1, 1}}> "
        f"{{ product = Mul (images, images) found = {call} out = Neg (found) }}"
    )
    assert to_half(model, precision) == {precision: 2, "fp32": 1}
    (node,) = [node for node in model.graph if node.op_type == call.split(maxsplit=1)[0]]
    assert {value.dtype for value in (*node.inputs, *node.outputs) if value is not None} == {FLOAT}


def test_a_bias_added_before_softmax_alone_is_float32() -> None:
    """It may be as low as float32 goes, which FP16 holds only as minus infinity."""
    model = parsed(
        "two (float[2, 4] images) => (float[2, 4] out) <float[4] bias = {0, 0, -3.0e38, 0}> { product = "
        "Mul (images, images) biased = Add (product, bias) weights = Softmax (biased) out = Add (weights, images) }"
    )
    assert to_half(model, "fp16") == {"fp16": 2, "fp32": 2}
    found = OnnxRuntimeRunner(checked(model)).run(np.ones((2, 4), np.float32))["out"]
    assert found == pytest.approx(np.array([[4 / 3, 4 / 3, 1, 4 / 3]] * 2), abs=2e-3)


def parsed(graph: str) -> ir.Model:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 20]> {graph}')
    return ir.from_proto(onnx.shape_inference.infer_shapes(proto))
