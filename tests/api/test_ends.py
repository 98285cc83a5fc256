"""Files that take pixels and name classes, against Pillow, timm and PyTorch; and the verbs that open them."""

import math
from pathlib import Path
from typing import Literal

import numpy as np
import onnx_ir as ir
import pytest
import torch
from PIL import Image
from timm.data import create_transform

import tofe_export as tofe
from tests.helpers import SMALL_CLASSES, SMALL_KEEP, refusal, require_openvino, save_small
from tofe_export.artifacts.artifact import Artifact, open_artifact
from tofe_export.artifacts.ends import check_ends
from tofe_export.data.image_log import ImageLog
from tofe_export.data.sources import open_source
from tofe_export.documents.manifest import OnnxManifest
from tofe_export.graph.export import INPUT
from tofe_export.graph.preparing import PREPARE
from tofe_export.graph.stored import read_onnx
from tofe_export.model.fixed_path import FixedPath
from tofe_export.runners.onnxruntime_runner import import_onnxruntime

TOP = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth, plain.onnx, served.onnx (pixels in, classes out), inlined.onnx, and images of several sizes."""
    folder = tmp_path_factory.mktemp("ends")
    noise = np.random.default_rng(0)
    for index, size in enumerate([(40, 56), (32, 32), (90, 33), (20, 25)]):
        path = folder / "images" / "ab"[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)
    save_small(folder / "ckpt.pth", data="images")
    asked = {"keep": SMALL_KEEP, "data": folder / "images"}
    served = {"input": "image", "outputs": "classes", "top": TOP}
    tofe.export(folder / "ckpt.pth", folder / "plain.onnx", **asked)
    tofe.export(folder / "ckpt.pth", folder / "served.onnx", **asked, **served)
    tofe.export(folder / "ckpt.pth", folder / "inlined.onnx", **asked, **served, inline=True)
    return folder


def pictures(folder: Path) -> list[Path]:
    return sorted((folder / "images").rglob("*.png"))


@pytest.mark.parametrize("name", ["served.onnx", "inlined.onnx"])
def test_it_names_the_classes_that_pytorch_names_of_what_timm_prepares(folder: Path, name: str) -> None:
    session = import_onnxruntime().InferenceSession(folder / name)
    assert [one.name for one in session.get_inputs()] == ["pixels"]
    assert [one.name for one in session.get_outputs()] == ["classes", "probabilities"]
    network = tofe.load(folder / "ckpt.pth").model
    transform = create_transform(
        (3, 32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_pct=0.9
    )
    for path in pictures(folder):
        with Image.open(path) as image:
            pixels, prepared = np.array(image)[None], transform(image)[None]
        classes, probabilities = session.run(None, {"pixels": pixels})
        with torch.inference_mode():
            expected = (
                network.forward_fixed(prepared, FixedPath(SMALL_KEEP, rearranged=True)).logits.double().softmax(dim=1)
            )
        best = expected.sort(descending=True, stable=True)
        assert classes.tolist() == best.indices[:, :TOP].tolist()
        np.testing.assert_allclose(probabilities, best.values[:, :TOP].numpy(), atol=1e-6)


def test_the_network_inside_is_the_one_that_is_exported_without_ends(folder: Path) -> None:
    inside, plain = (open_artifact(folder / name) for name in ("served.onnx", "plain.onnx"))
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    assert np.array_equal(inside.open().run(images)["logits"], plain.open().run(images)["logits"])
    assert isinstance(inside.manifest, OnnxManifest)
    assert (inside.manifest.options.input, inside.manifest.options.top) == ("image", TOP)
    assert inside.manifest.outputs == ("logits",)


def test_verify_looks_at_the_ends_too(folder: Path) -> None:
    verification = tofe.verify(folder / "served.onnx", against=folder / "ckpt.pth", data=folder / "images").artifacts[0]
    assert verification.passed
    assert {check.name: check.passed for check in verification.checks}["ends"] is True


def test_predict_gives_the_same_classes(folder: Path) -> None:
    predictions = tofe.predict(folder / "served.onnx", folder / "images", top=TOP)
    session = import_onnxruntime().InferenceSession(folder / "served.onnx")
    for one in predictions:
        with Image.open(one.image) as image:
            classes, probabilities = session.run(None, {"pixels": np.array(image)[None]})
        assert [best.index for best in one.classes] == classes[0].tolist()
        np.testing.assert_allclose([best.probability for best in one.classes], probabilities[0], atol=1e-6)


def test_inspect_shows_what_the_file_takes_and_returns(folder: Path) -> None:
    inspection = tofe.inspect(folder / "served.onnx")
    assert inspection.inputs == {"pixels": "[batch,height,width,3]"}
    assert list(inspection.outputs) == ["classes", "probabilities"]


def test_bench_does_not_time_half_of_a_file(folder: Path) -> None:
    assert refusal(tofe.bench, folder / "served.onnx").code == "has-ends"


@pytest.mark.parametrize("verb", ["quantize", "build", "optimize"])
def test_verbs_that_make_another_file_of_it_refuse(folder: Path, tmp_path: Path, verb: str) -> None:
    more = {"target": "onnxruntime"} if verb == "optimize" else {}
    written = tmp_path / ("model.engine" if verb == "build" else "other.onnx")
    assert refusal(getattr(tofe, verb), folder / "served.onnx", written, **more).code == "has-ends"


@pytest.mark.parametrize("mean", [0.48, math.nan])
def test_another_mean_is_noticed(folder: Path, tmp_path: Path, mean: float) -> None:
    model = read_onnx(folder / "served.onnx")
    body = next(body for name, body in model.functions.items() if name[1] == PREPARE)
    constant = next(node for node in body if node.outputs[0].name == "mean")
    constant.attributes["value"] = ir.AttrTensor("value", ir.tensor(np.full((3, 1, 1), mean, np.float32)))
    path = tmp_path / "spoiled.onnx"
    ir.save(model, path)
    artifact = open_artifact(folder / "served.onnx")
    agreement = check_ends(Artifact(path, artifact.manifest), open_source(str(folder / "images"), "any"), ImageLog())
    assert agreement.differing == 1
    assert "100.00% of the pixels" in agreement.failures[0]


def test_classes_and_logits_are_one_too_many(folder: Path, tmp_path: Path) -> None:
    error = refusal(tofe.export, folder / "ckpt.pth", tmp_path / "m.onnx", outputs=["logits", "classes"])
    assert error.code == "logits-and-classes"
    assert refusal(tofe.export, folder / "ckpt.pth", tmp_path / "m.onnx", outputs="classes", top=0).code == (
        "too-few-classes"
    )
    assert refusal(tofe.export, folder / "ckpt.pth", tmp_path / "m.onnx", input="jpeg").code == "unknown-input"
    assert not list(tmp_path.iterdir())


def test_more_classes_than_there_are_become_all(folder: Path, tmp_path: Path) -> None:
    artifact = tofe.export(folder / "ckpt.pth", tmp_path / "m.onnx", keep=SMALL_KEEP, outputs="classes", top=50)
    assert artifact.manifest.options.top == len(SMALL_CLASSES)
    assert artifact.manifest.options.input == "tensor"
    images = np.zeros((2, 3, 32, 32), np.float32)
    classes, probabilities = import_onnxruntime().InferenceSession(artifact.path).run(None, {INPUT: images})
    assert sorted(classes[0].tolist()) == list(range(len(SMALL_CLASSES)))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "any"])
def test_ends_come_with_the_form_for_a_runtime(folder: Path, tmp_path: Path, target: Literal["onnxruntime"]) -> None:
    if target == "openvino":
        require_openvino()
    path = tmp_path / "served.onnx"
    asked = {"input": "image", "classes": TOP, "data": folder / "images"}
    artifact = tofe.optimize(folder / "plain.onnx", path, target=target, **asked)
    assert artifact.ends is not None
    assert artifact.ends.samples == 8
    assert artifact.ends.differing <= (0.01 if target == "openvino" else 0)
    assert tofe.verify(path, against=folder / "ckpt.pth", data=folder / "images").passed
    expected = tofe.predict(folder / "plain.onnx", folder / "images", top=TOP)
    for one, other in zip(tofe.predict(path, folder / "images", top=TOP), expected, strict=True):
        assert [best.index for best in one.classes] == [best.index for best in other.classes]


def test_a_quantized_file_is_served_too(folder: Path, tmp_path: Path) -> None:
    tofe.quantize(folder / "plain.onnx", tmp_path / "int8.onnx", recipe="matmuls", data=folder / "images")
    artifact = tofe.optimize(
        tmp_path / "int8.onnx", tmp_path / "served.onnx", target="onnxruntime", input="image", classes=1
    )
    assert (artifact.manifest.precision, artifact.manifest.options.top) == ("int8", 1)
    with Image.open(pictures(folder)[0]) as image:
        answer = import_onnxruntime().InferenceSession(artifact.path).run(None, {"pixels": np.array(image)[None]})
    [first] = tofe.predict(tmp_path / "int8.onnx", pictures(folder)[0], top=1)
    assert answer[0].tolist() == [[first.classes[0].index]]
    assert answer[1].item() == pytest.approx(first.classes[0].probability, abs=1e-6)
