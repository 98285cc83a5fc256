"""LV-ViT's residual scales move into the weights before them, and nothing else does."""

import numpy as np
import onnx.parser
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.helpers import SMALL, small_images, small_tofe
from tofe_export.graph import export
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.graph.passes import PIPELINE
from tofe_export.graph.passes.scales import fold_scales
from tofe_export.model.config import ToFeConfig
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe, build_tofe

KEEP = (8,)


def run(model: ir.Model, name: str, value: np.ndarray) -> np.ndarray:
    """The first output, by the graph's nodes as they are."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    content = ir.to_proto(model).SerializeToString()
    session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    found: np.ndarray = session.run(None, {name: value})[0]
    return found


def assert_equals_pytorch(model: ir.Model, network: ToFe) -> None:
    images = small_images(3)
    with torch.no_grad():
        expected = network.forward_fixed(images, FixedPath(KEEP, rearranged=False)).logits
    np.testing.assert_allclose(run(model, "images", images.numpy()), expected.numpy(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("backbone", "divisor", "before"), [("lvvit_s", 2, 1), ("lvvit_l", 3, 0)])
def test_no_division_is_left_in_the_residual_branches(backbone: str, divisor: int, before: int) -> None:
    """In a block of a stage, and in as many before it."""
    network = small_tofe(backbone, stage_starts=(before,), depth=before + 1, stem=8)
    model = export_tofe(network, KEEP, rearrange=False, taps=False)
    assert "Div" not in {node.op_type for node in model.graph}
    assert_equals_pytorch(model, network)
    for block in range(before + 1):
        for layer in ("attn.proj", "mlp.fc2"):
            tensor = model.graph.initializers[f"vit.blocks.{block}.{layer}.weight.T"].const_value
            assert tensor is not None
            weight = network.vit.get_parameter(f"blocks.{block}.{layer}.weight").detach().numpy().T
            # By hand in the same precision: for 2 this is exact, for 3 rounded once.
            assert np.array_equal(tensor.numpy(), weight / np.float32(divisor))


def test_halving_changes_not_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    # Dividing by a power of two only changes exponents, so it commutes with every rounding on the way.
    network, images = small_tofe("lvvit_s", stage_starts=(1,), depth=2, stem=8), small_images(3).numpy()
    folded = export_dense(network)
    monkeypatch.setattr(export, "PIPELINE", tuple(step for step in PIPELINE if step is not fold_scales))
    plain = export_dense(network)
    operators = [node.op_type for node in plain.graph]
    assert operators.count("Div") == 4, "two a block"
    assert len(operators) == len(folded.graph) + 4
    assert np.array_equal(run(folded, "images", images), run(plain, "images", images))


def test_biases_that_are_stored_once_are_divided_once_and_others_keep_theirs() -> None:
    # A fresh network has nothing but zeros as biases, and equal ones are stored once: for two layers of its block,
    # whose divisions must not add up, and for norms and approximators, which are not divided at all. A zero would not
    # show that, so the second try has another number.
    torch.manual_seed(0)
    network = build_tofe(ToFeConfig("lvvit_s", {**SMALL, "depth": 1, "stem": 8}, stage_starts=(0,))).eval()
    assert_equals_pytorch(export_tofe(network, KEEP, rearrange=False, taps=False), network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias") and parameter.shape == (32,):
                parameter.fill_(0.7)
    model = export_tofe(network, KEEP, rearrange=False, taps=False)
    constants = [value.const_value for value in model.graph.initializers.values()]
    same = [tensor for tensor in constants if tensor is not None and tensor.shape == (32,) and tensor.numpy()[0] == 0.7]
    assert len(same) == 1, "equal biases are stored once, or this shows nothing"
    assert_equals_pytorch(model, network)


def folded(body: str, initializers: str = "", outputs: str = "float[N, 2] out") -> tuple[bool, ir.Model]:
    """A small graph of x [N, 2], after the pass; it must still compute what it did."""
    text = f"""<ir_version: 10, opset_import: ["": 20]>
    small (float[N, 2] x) => ({outputs})
    <float[2, 2] weight = {{1, 2, 3, 4}}, float[2] bias = {{5, 6}}, float scale = {{3}}{initializers}> {{ {body} }}"""
    before, after = (ir.from_proto(onnx.parser.parse_model(text)) for _ in range(2))
    changed = fold_scales(after)
    x = np.array([[1, -2], [0.5, 7]], dtype=np.float32)
    np.testing.assert_allclose(run(after, "x", x), run(before, "x", x), rtol=1e-6)
    assert changed == (operators(before) != operators(after))
    onnx.checker.check_model(ir.to_proto(after))
    return changed, after


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


LINEAR = "rows = MatMul (x, weight) total = Add (rows, bias) "


def test_the_pattern() -> None:
    changed, model = folded(LINEAR + "divided = Div (total, scale) out = Relu (divided)")
    assert changed
    assert operators(model) == ["MatMul", "Add", "Relu"]
    assert "scale" not in model.graph.initializers
    assert not fold_scales(model), "a second time there is nothing to do"


def test_a_bias_on_the_left_and_a_divisor_that_others_divide_by_too() -> None:
    body = "rows = MatMul (x, weight) total = Add (bias, rows) divided = Div (total, scale) out = Div (divided, scale)"
    changed, model = folded(body)
    assert changed
    assert operators(model) == ["MatMul", "Add", "Div"]


def test_a_bias_and_a_weight_that_another_layer_reads_too() -> None:
    body = LINEAR + "divided = Div (total, scale) again = MatMul (divided, weight) out = Add (again, bias)"
    changed, model = folded(body)
    assert changed
    assert operators(model) == ["MatMul", "Add", "MatMul", "Add"]


def test_two_layers_that_share_their_bias_are_each_divided_once() -> None:
    body = LINEAR + (
        "divided = Div (total, scale) rows2 = MatMul (divided, other) total2 = Add (rows2, bias) "
        "divided2 = Div (total2, scale) out = Relu (divided2)"
    )
    changed, model = folded(body, ", float[2, 2] other = {1, 0, 2, 1}")
    assert changed
    assert operators(model) == ["MatMul", "Add", "MatMul", "Add", "Relu"]


@pytest.mark.parametrize(
    ("body", "initializers"),
    [
        # Something else reads the undivided value, before or after the bias is added.
        (LINEAR + "divided = Div (total, scale) out = Add (divided, total)", ""),
        (LINEAR + "divided = Div (total, scale) out = Add (divided, rows)", ""),
        # No constant of one element divides.
        (LINEAR + "divided = Div (total, x) out = Relu (divided)", ""),
        (LINEAR + "divided = Div (total, many) out = Relu (divided)", ", float[2] many = {2, 4}"),
        (LINEAR + "divided = Div (scale, total) out = Relu (divided)", ""),
        # No linear layer with weights of its own stands before.
        ("total = Add (x, bias) divided = Div (total, scale) out = Relu (divided)", ""),
        ("rows = MatMul (x, weight) divided = Div (rows, scale) out = Relu (divided)", ""),
        ("rows = MatMul (x, weight) total = Add (rows, x) divided = Div (total, scale) out = Relu (divided)", ""),
        (LINEAR + "large = Relu (total) divided = Div (large, scale) out = Relu (divided)", ""),
    ],
)
def test_what_is_not_the_pattern_stays(body: str, initializers: str) -> None:
    changed, _ = folded(body, initializers)
    assert not changed


def test_an_output_of_the_graph_keeps_its_name() -> None:
    changed, _ = folded(LINEAR + "out = Div (total, scale)")
    assert not changed


def test_an_output_of_the_graph_keeps_its_undivided_value() -> None:
    changed, _ = folded(
        LINEAR + "divided = Div (total, scale) out = Relu (divided)", outputs="float[N, 2] total, float[N, 2] out"
    )
    assert not changed
