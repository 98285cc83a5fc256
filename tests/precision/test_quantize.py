"""INT8 and FP8 in the graph: explicit, where TensorRT fuses it, and close to float32."""

from collections import Counter

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.helpers import VARIANTS, exported_tofe, small_images
from tofe_export.documents.recipe import ATTENTION, KINDS, QuantizePolicy
from tofe_export.errors import InputError
from tofe_export.graph.functions import is_operator
from tofe_export.graph.passes.taps import show_taps
from tofe_export.precision.calibration import read_by
from tofe_export.precision.half import to_half
from tofe_export.precision.kinds import quantizable
from tofe_export.precision.quantize import FORMATS, is_quantized, quantize_graph, scales
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

EVERYTHING = QuantizePolicy(high_precision=())


def ranges(model: ir.Model) -> dict[str, float]:
    """The greatest magnitude of each value on a few images, found without the calibration."""
    copy = ir.from_proto(ir.to_proto(model))
    values = {value.name: value for node in copy.graph for value in node.outputs}
    names = [name for name in read_by(model) if name in values]
    copy.graph.outputs.extend(values[name] for name in names)
    images = small_images(8).numpy()
    found = {"images": images, **OnnxRuntimeRunner(ir.to_proto(copy).SerializeToString()).run(images)}
    return {name: float(np.abs(found[name]).max()) for name in read_by(model)}


def checked(model: ir.Model) -> bytes:
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    return bytes(proto.SerializeToString())


def producer(node: ir.Node, index: int) -> str:
    value = node.inputs[index]
    source = value.producer() if value is not None else None
    return source.op_type if source is not None else ""


@settings(max_examples=12, phases=[Phase.explicit, Phase.generate])
@given(
    variant=st.sampled_from(VARIANTS),
    precision=st.sampled_from(["int8", "fp8"]),
    attention=st.booleans(),
    spared=st.sets(st.sampled_from([kind for kind in KINDS if kind not in (ATTENTION, "qkv")])),
    around=st.sampled_from(["fp32", "fp16"]),
)
def test_any_policy_gives_a_valid_graph_that_stays_close(
    variant: tuple[str, str, bool], precision: str, attention: bool, spared: set[str], around: str
) -> None:
    model = exported_tofe(*variant, short=True)
    policy = QuantizePolicy(attention=attention, high_precision=tuple(spared))
    kinds = quantizable(model.graph)
    made = quantize_graph(model, ranges(model), policy, precision)
    assert not is_quantized(model), "the original is left alone"
    chosen = {name for name, kind in kinds.items() if kind in policy.kinds}
    assert sum(made.layers.quantized.values()) == len(chosen)
    assert sum(made.layers.high_precision.values()) == len(kinds) - len(chosen)
    for node in made.model.graph:
        behind = [producer(node, index) for index in range(len(node.inputs))]
        if node.name in chosen:
            assert behind[:2] == ["DequantizeLinear", "DequantizeLinear"]
            assert "DequantizeLinear" not in behind[2:], "no quantized bias"
        elif node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            assert "DequantizeLinear" not in behind, f"{node.name} reads rounded values"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            zero = node.inputs[2]
            assert zero is not None
            assert zero.const_value is not None
            assert zero.dtype == FORMATS[precision]
            assert not np.any(zero.const_value.numpy().astype(np.float32))
    if around == "fp16":
        to_half(made.model, "fp16")
    images = small_images(3, 7).numpy()
    expected = OnnxRuntimeRunner(ir.to_proto(model).SerializeToString()).run(images)["logits"]
    found = OnnxRuntimeRunner(checked(made.model)).run(images)["logits"]
    assert found.dtype == np.float32
    cosine = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    assert np.median(cosine) > 0.9  # a flipped token may change one of these tiny networks' images for good


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_weights_have_a_scale_for_each_output_channel_and_lie_within_half_a_step(precision: str) -> None:
    model = exported_tofe()
    made = quantize_graph(model, ranges(model), EVERYTHING, precision).model
    axes = Counter[int]()
    for node in made.graph:
        stored = node.inputs[0] if node.op_type == "DequantizeLinear" else None
        if stored is None or stored.const_value is None:
            continue
        assert stored.dtype == FORMATS[precision]
        name = str(stored.name).removesuffix(f".{precision}")
        original = model.graph.initializers[name].const_value
        scale = node.inputs[1].const_value if node.inputs[1] is not None else None
        assert original is not None
        assert scale is not None
        axis = node.attributes.get_int("axis", 1)
        weight, step = original.numpy(), scale.numpy()
        assert step.shape == (weight.shape[axis],)
        axes[axis] += 1
        step = step.reshape([-1 if index == axis else 1 for index in range(weight.ndim)])
        restored = stored.const_value.numpy().astype(np.float32) * step
        # A float8 has 4 significant bits down to 2^-6, and steps of 2^-9 below.
        error = 0.5 * step if precision == "int8" else np.maximum(np.abs(weight) / 16, step * 2.0**-10)
        assert (np.abs(restored - weight) <= error * 1.001).all()
    assert axes[0] == 2, "the patch convolution and the head count channels along the first axis"
    assert axes[1] > 20


def test_one_scale_a_weight_if_the_recipe_says_so() -> None:
    model = exported_tofe()
    made = quantize_graph(model, ranges(model), EVERYTHING.replaced(per_channel=False), "int8").model
    shapes = {
        tuple(node.inputs[1].shape or ())
        for node in made.graph
        if node.op_type == "DequantizeLinear" and node.inputs[1]
    }
    assert shapes == {()}
    checked(made)


def test_the_operators_rows_pass_unquantized() -> None:
    model = exported_tofe()
    made = quantize_graph(model, ranges(model), EVERYTHING, "int8").model
    operators = [node for node in made.graph if is_operator(node)]
    assert len(operators) == 5
    assert made.functions.keys() == model.functions.keys()
    for node in operators:
        assert {producer(node, index) for index in range(len(node.inputs))}.isdisjoint({"DequantizeLinear"})
        assert all(user.op_type != "QuantizeLinear" for value in node.outputs for user, _ in value.uses())


@pytest.mark.parametrize("selector", ["mlp", "linear", "attention"])
def test_tapped_values_are_the_unrounded_ones(selector: str) -> None:
    model = exported_tofe(selector, short=selector != "mlp")
    show_taps(model)
    names = [value.name for value in model.graph.outputs]
    made = quantize_graph(model, ranges(model), EVERYTHING, "int8").model
    assert [value.name for value in made.graph.outputs] == names
    producers = [value.producer() for value in made.graph.outputs]
    assert all(node is not None and node.op_type != "DequantizeLinear" for node in producers)
    images = small_images(2).numpy()
    found = OnnxRuntimeRunner(checked(made)).run(images)
    assert set(found) == set(names)


def test_all_of_an_attention_or_nothing() -> None:
    model = exported_tofe()
    for attention in (True, False):
        made = quantize_graph(model, ranges(model), EVERYTHING.replaced(attention=attention), "int8").model
        products = [node for node in made.graph if quantizable(model.graph).get(str(node.name)) == ATTENTION]
        assert len(products) == 8
        assert {producer(node, 0) == "DequantizeLinear" for node in products} == {attention}


def test_int8_is_the_same_on_every_processor() -> None:
    """ONNX Runtime's kernels for x86 without VNNI add two products of an unsigned value and a weight in 16 bits."""
    model = exported_tofe()
    most = {}
    for reduce_range in (True, False):
        made = quantize_graph(model, ranges(model), EVERYTHING.replaced(reduce_range=reduce_range), "int8").model
        stored = [value.const_value for name, value in made.graph.initializers.items() if name.endswith(".int8")]
        most[reduce_range] = max(int(np.abs(tensor.numpy().astype(int)).max()) for tensor in stored if tensor)
        if reduce_range:
            images = small_images(16, 3).numpy()
            fused, apart = (_logits(checked(made), level, images) for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"))
            # Apart, every product is of float32 numbers and cannot saturate.
            assert np.allclose(fused, apart, atol=1e-4)
    assert most == {True: 64, False: 127}
    assert 2 * 255 * most[True] < 2**15 <= 2 * 255 * most[False]


def _logits(content: bytes, level: str, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["logits"], {session.get_inputs()[0].name: images})[0])


@given(st.floats(min_value=0, max_value=1e4), st.sampled_from([64.0, 127.0, 448.0]))
def test_scales_are_fp16_numbers_that_clip_nothing(top: float, largest: float) -> None:
    scale = scales(np.array(top), largest)
    assert scale.dtype == np.float32
    assert np.float16(scale) == scale
    assert scale >= 2.0**-14
    assert scale * largest >= top
    assert scale * largest <= max(top * 1.002, 2.0**-14 * largest * 1.002)


def test_the_same_integers_serve_fp16_and_fp32() -> None:
    model = exported_tofe()
    made = quantize_graph(model, ranges(model), EVERYTHING, "int8").model
    stored = {name: value.const_value for name, value in made.graph.initializers.items() if name.endswith(".int8")}
    before = {name: np.array(tensor.numpy()) for name, tensor in stored.items() if tensor is not None}
    scales_before = [
        float(node.inputs[1].const_value.numpy().max())
        for node in made.graph
        if node.op_type == "DequantizeLinear" and node.inputs[1] is not None and node.inputs[1].const_value is not None
    ]
    to_half(made, "fp16")
    after = [
        float(node.inputs[1].const_value.numpy().max())
        for node in made.graph
        if node.op_type == "DequantizeLinear" and node.inputs[1] is not None and node.inputs[1].const_value is not None
    ]
    assert scales_before == after
    for name, values in before.items():
        tensor = made.graph.initializers[name].const_value
        assert tensor is not None
        assert np.array_equal(tensor.numpy(), values)


def test_a_graph_is_quantized_once() -> None:
    model = exported_tofe()
    made = quantize_graph(model, ranges(model), QuantizePolicy(), "int8").model
    with pytest.raises(InputError) as caught:
        quantize_graph(made, ranges(model), QuantizePolicy(), "int8")
    assert caught.value.code == "already-quantized"


def test_a_value_without_a_range_is_named() -> None:
    model = exported_tofe()
    found = ranges(model)
    name = next(value for value in found if "Softmax" in value)
    with pytest.raises(InputError) as caught:
        quantize_graph(model, {**found, name: 0.0}, QuantizePolicy(), "int8")
    assert (caught.value.code, caught.value.details["value"]) == ("range-zero", name)
    quantize_graph(model, {**found, name: 0.0}, QuantizePolicy(attention=False), "int8")


def test_a_recipe_that_finds_nothing() -> None:
    model = exported_tofe("linear", "identity", short=True)
    others = tuple(kind for kind in KINDS if kind not in ("approximator", ATTENTION))
    with pytest.raises(InputError) as caught:
        quantize_graph(model, ranges(model), QuantizePolicy(attention=False, high_precision=others), "int8")
    assert caught.value.code == "nothing-to-quantize"
    assert "(approximator)" in caught.value.message


def test_values_too_small_for_fp16_scales_are_said_by_layer() -> None:
    model = exported_tofe()
    assert quantize_graph(model, ranges(model), QuantizePolicy(), "int8").coarse == {}
    weight = model.graph.initializers["vit.blocks.2.mlp.fc1.weight.T"]
    assert weight.const_value is not None
    values = np.array(weight.const_value.numpy())
    values[:, 3] *= 1e-4  # a channel far below 127 / 2^14 = 0.0078
    values[:, 7] = 0  # nothing is lost by a scale of zeros
    weight.const_value = ir.tensor(values, name=weight.name)
    found = ranges(model)
    softmax = next(value for value in found if "Softmax" in value and "blocks.1" in value)
    made = quantize_graph(model, {**found, softmax: 1e-3}, QuantizePolicy(), "int8")
    (layer,) = [node.name for node in model.graph if node.name and node.name.startswith("vit.blocks.2.mlp.fc1/")][:1]
    product = next(name for name in made.coarse if "blocks.1" in name)
    assert made.coarse == {layer: 1, product: 1}
    assert quantizable(model.graph)[product] == ATTENTION


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e9])
def test_a_weight_without_a_scale_is_named(bad: float) -> None:
    model = exported_tofe()
    found = ranges(model)
    weight = model.graph.initializers["vit.blocks.2.mlp.fc1.weight.T"]
    assert weight.const_value is not None
    values = np.array(weight.const_value.numpy())
    values[1, 3] = bad
    weight.const_value = ir.tensor(values, name=weight.name)
    with pytest.raises(InputError) as caught:
        quantize_graph(model, found, QuantizePolicy(), "int8")
    assert (caught.value.code, caught.value.details["value"]) == ("range-too-large", weight.name)
    name = next(value for value in found if "Softmax" in value)
    with pytest.raises(InputError) as caught:
        quantize_graph(exported_tofe(), {**found, name: bad}, QuantizePolicy(), "int8")
    assert (caught.value.code, caught.value.details["value"]) == ("range-too-large", name)
