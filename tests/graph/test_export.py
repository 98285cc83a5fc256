"""The exported file: shape, names, operators, determinism, and the same numbers as PyTorch."""

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from tests.helpers import ONE_STAGE, TWO_STAGES, small_images, small_tofe
from tofe_export.graph import export
from tofe_export.graph.export import export_dense, export_tofe
from tofe_export.graph.passes.names import name_by_module
from tofe_export.graph.passes.taps import hide_taps, show_taps, tapped_stages
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe

KEEP = (8, 5, 3)


def run(model: onnx.ModelProto, images: torch.Tensor) -> dict[str, np.ndarray]:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(None, {"images": images.numpy()}), strict=True))


@pytest.fixture(scope="module")
def network() -> ToFe:
    return small_tofe()


@pytest.fixture(scope="module")
def forms(network: ToFe) -> dict[tuple[str, bool], onnx.ModelProto]:
    return {
        (form, taps): ir.to_proto(export_tofe(network, KEEP, form == "plugin", taps))
        for form in ("plugin", "elide")
        for taps in (False, True)
    }


@pytest.mark.parametrize("form", ["plugin", "elide"])
@pytest.mark.parametrize("taps", [False, True])
def test_checked_named_and_equal_at_any_batch(
    forms: dict[tuple[str, bool], onnx.ModelProto], network: ToFe, form: str, taps: bool
) -> None:
    model = forms[form, taps]
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain: entry.version for entry in model.opset_import} == {"": 20, "tofe": 1}
    assert [value.name for value in model.graph.input] == ["images"]
    per_stage = [f"stage{s}.{what}" for s in range(3) for what in ("scores", "perm", "tokens")]
    assert [value.name for value in model.graph.output] == ["logits", *(per_stage if taps else [])]
    for batch in (1, 2, 5):
        images = small_images(batch, seed=batch)
        found = run(model, images)
        with torch.no_grad():
            expected = network.forward_fixed(images, FixedPath(KEEP, form == "plugin"))
        np.testing.assert_allclose(found["logits"], expected.logits.numpy(), rtol=0, atol=1e-5)
        for trace in expected.stages if taps else []:
            assert np.array_equal(found[f"stage{trace.index}.perm"], trace.perm.numpy())
            for what in ("scores", "tokens"):
                mine = getattr(trace, what).numpy()
                np.testing.assert_allclose(found[f"stage{trace.index}.{what}"], mine, rtol=0, atol=1e-4)


def test_operators_carry_what_the_contract_fixes(forms: dict[tuple[str, bool], onnx.ModelProto]) -> None:
    model = forms["plugin", False]
    nodes = [node for node in model.graph.node if node.domain == "tofe"]
    # Under a CLS head the last stage needs no rearrange.
    assert Counter(node.op_type for node in nodes) == {"TokenPartition": 3, "ScatterRearrange": 2}
    assert [node.name for node in nodes if node.op_type == "TokenPartition"] == [
        f"stages.{stage}/TokenPartition" for stage in range(3)
    ]
    keeps = []
    for node in nodes:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        assert attributes.pop("plugin_namespace") == b"tofe"
        assert attributes.pop("plugin_version") == b"1"
        assert attributes.pop("prefix") == 1
        keeps += [attributes.pop("keep")] if node.op_type == "TokenPartition" else []
        assert not attributes
    assert tuple(keeps) == KEEP
    assert {function.name for function in model.functions} == {"TokenPartition", "ScatterRearrange"}
    assert {function.name for function in forms["elide", False].functions} == {"TokenPartition"}
    assert not any("approximator" in node.name for node in model.graph.node if node.name.startswith("stages.2"))


def test_names_tell_the_module(forms: dict[tuple[str, bool], onnx.ModelProto]) -> None:
    graph = forms["plugin", False].graph
    names = [node.name for node in graph.node]
    assert len(names) == len(set(names))
    for block in range(3):
        for layer in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
            assert f"vit.blocks.{block}.{layer}/MatMul" in names
    initializers = {tensor.name for tensor in graph.initializer}
    assert "vit.blocks.0.attn.qkv.weight.T" in initializers
    assert "stages.0.selector.mix.bias" in initializers
    # 4 blocks twice, final norm, 3 selectors, 2 approximators: none taken apart.
    operators = Counter(node.op_type for node in graph.node)
    assert operators["LayerNormalization"] == 4 * 2 + 1 + 3 + 2
    assert "Pow" not in operators
    assert "Sqrt" not in operators


def test_no_trace_of_the_machine(forms: dict[tuple[str, bool], onnx.ModelProto]) -> None:
    content = forms["plugin", True].SerializeToString()
    assert b"site-packages" not in content
    assert not re.search(rb"/[\w./-]+\.py", content)
    assert str(Path.cwd()).encode() not in content


def test_dense_baseline_is_the_backbone(network: ToFe) -> None:
    model = ir.to_proto(export_dense(network))
    assert not model.functions
    with torch.no_grad():
        expected = network.vit(small_images(3)).numpy()
    np.testing.assert_allclose(run(model, small_images(3))["logits"], expected, rtol=0, atol=1e-5)


def test_a_stage_that_keeps_everything_selects_nothing() -> None:
    model = export_tofe(small_tofe(**TWO_STAGES), (16, 5), rearrange=True, taps=True)
    assert tapped_stages(model) == [1]
    assert [node.name for node in model.graph if node.op_type == "TokenPartition"] == ["stages.1/TokenPartition"]


def test_taps_can_be_shown_and_hidden(network: ToFe) -> None:
    model = export_tofe(network, KEEP, rearrange=False, taps=False)
    assert show_taps(model)
    assert not show_taps(model)
    assert len(model.graph.outputs) == 10
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    assert hide_taps(model)
    assert [output.name for output in model.graph.outputs] == ["logits"]


def both_operators_hash() -> str:
    """Of a file with everything whose order could be another one: both operators, both outputs and taps."""
    network = small_tofe(**ONE_STAGE, dense_output=True)
    proto = ir.to_proto(export_tofe(network, (8,), rearrange=True, taps=True, outputs=("features", "logits")))
    assert len(proto.functions) == 2
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).hexdigest()


def test_same_bytes_in_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_trace", export._trace.fresh)  # type: ignore[attr-defined]
    mine = both_operators_hash()
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    code = "from tests.graph.test_export import *; print(both_operators_hash())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert other.stdout.strip() == mine


def test_a_constant_is_called_after_its_first_reader_in_the_graph() -> None:
    model = ir.from_proto(
        onnx.parser.parse_model(
            '<ir_version: 10, opset_import: ["": 20]> two (float[2] images) => (float[2] out) <float[2] two = {2, 2}>'
            "{ out = Mul (images, two) }"
        )
    )
    (reader,) = model.graph
    earlier = ir.node("Add", [model.graph.inputs[0], model.graph.initializers["two"]])  # made later
    model.graph.insert_before(reader, earlier)
    reader.replace_input_with(0, earlier.outputs[0])
    name_by_module(model)
    assert list(model.graph.initializers) == ["images/Add_input_1"]
