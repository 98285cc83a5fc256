"""Models of other programs, and files that are none: our own sentence comes first, then what ONNX Runtime says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import NodeProto, TensorProto, helper

from tests.helpers import refused_as
from tofe_export.errors import InputError
from tofe_export.graph.stored import read_onnx
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner

RELU = helper.make_node("Relu", ["x"], ["y"])


def model(
    node: NodeProto = RELU,
    opset: int = 20,
    shape: tuple[object, ...] = ("b", 3, 4, 4),
    inputs: bool = True,
    outs: bool = True,
) -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    graph = helper.make_graph([node], "other", [x] if inputs else [], [y] if outs else [])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (model(opset=999), r"It says: .*Opset 999"),
        (model(helper.make_node("Frobnicate", ["x"], ["y"])), r"It says: .*No Op registered for Frobnicate"),
        (model(helper.make_node("Relu", ["gone"], ["y"])), r"It says: .*'gone' is not a graph input"),
        (b"hello", r"It says: Failed to load model because protobuf parsing failed"),
        (model(outs=False), r"The model has no outputs"),
        (model(helper.make_node("RandomNormal", [], ["y"], shape=[1, 3, 4, 4]), inputs=False), r"has no inputs"),
    ],
    ids=["opset", "operator", "input", "text", "no outputs", "no inputs"],
)
def test_what_cannot_be_loaded(content: bytes, complaint: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        OnnxRuntimeRunner(content)
    assert caught.value.code == ("onnxruntime-refuses" if "It says" in complaint else "no-inputs-or-outputs")
    assert caught.value.next_step
    for own in ("ONNXRuntimeError", "INVALID_", "onnxruntime_src", "Status Message", "onnxruntime::"):
        assert own not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_images_for_a_model_that_takes_something_else() -> None:
    runner = OnnxRuntimeRunner(model(shape=("b", 3)))
    with refused_as("images-shape", expected=["b", 3], given=[1, 3, 4, 4]):
        runner.run(np.zeros((1, 3, 4, 4), np.float32))


@pytest.mark.parametrize("location", ["/etc/passwd", "../above.bin", "link.bin"])
def test_weights_are_read_from_beside_the_model_only(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "above.bin").write_bytes(bytes(64))
    (folder / "weights.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(tmp_path / "above.bin")
    path = folder / "model.onnx"
    for name in ("weights.bin", location):
        made = onnx.load_from_string(model(helper.make_node("Add", ["x", "w"], ["y"])))
        weight = made.graph.initializer.add(
            name="w", dims=[4, 4], data_type=TensorProto.FLOAT, data_location=TensorProto.EXTERNAL
        )
        for key, value in (("location", name), ("offset", "0"), ("length", "64")):
            weight.external_data.add(key=key, value=value)
        path.write_bytes(made.SerializeToString())
        if name == "weights.bin":
            assert isinstance(read_onnx(path).graph.initializers["w"].const_value, ir.ExternalTensor)
    with refused_as("external-data-outside", path=path):
        read_onnx(path)
