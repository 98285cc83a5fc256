"""`PrepareImages` against timm's transform, which calls Pillow: the same floats, for every size and crop mode."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_transform

from tests.helpers import refusal, require_openvino
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.graph.passes.ends import take_pixels
from tofe_export.graph.passes.inline import inline_operators
from tofe_export.graph.preparing import PREPARE, prepare_function
from tofe_export.graph.stored import serialize
from tofe_export.runners.onnxruntime_runner import import_onnxruntime

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = {
    "square": Preprocessing(32, 32, MEAN, STD, "bicubic", 0.875),
    "whole": Preprocessing(32, 32, MEAN, STD, "bilinear", 1.0),
    "wide": Preprocessing(24, 40, MEAN, STD, "bicubic", 0.9),
    "squashed": Preprocessing(32, 24, MEAN, STD, "bilinear", 0.9, "squash"),
    "bordered": Preprocessing(24, 32, MEAN, STD, "bicubic", 1.0, "border"),
    "bordered and cropped": Preprocessing(32, 32, MEAN, STD, "bilinear", 0.8, "border"),
}


def preparing(preprocessing: Preprocessing) -> ir.Model:
    """A model that does nothing else, but changes the sign."""
    shape = ir.Shape(["batch", 3, preprocessing.height, preprocessing.width])
    images = ir.Value(name="images", type=ir.TensorType(ir.DataType.FLOAT), shape=shape)
    turned = ir.node("Neg", [images], name="turned")
    turned.outputs[0].name, turned.outputs[0].type, turned.outputs[0].shape = "negative", images.type, shape
    graph = ir.Graph([images], turned.outputs, nodes=[turned], opset_imports={"": 20}, name="preparing")
    model = ir.Model(graph, ir_version=10)
    take_pixels(model, preprocessing)
    onnx.checker.check_model(ir.to_proto(model), full_check=True)
    return model


def picture(height: int, width: int, seed: int, smooth: bool) -> NDArray[np.uint8]:
    """Noise, or noise that was made larger, whose neighbours are alike as in a photograph."""
    noise = np.random.default_rng(seed)
    if not smooth:
        return noise.integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = noise.integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
    return np.array(Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR))


def by_timm(preprocessing: Preprocessing, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    transform = create_transform(
        (3, preprocessing.height, preprocessing.width),
        mean=preprocessing.mean,
        std=preprocessing.std,
        interpolation=preprocessing.interpolation,
        crop_pct=preprocessing.crop_pct,
        crop_mode=preprocessing.crop_mode,
    )
    return np.asarray(transform(Image.fromarray(pixels)))


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_those_of_pillow_and_timm(shape: str) -> None:
    preprocessing = SHAPES[shape]
    session = import_onnxruntime().InferenceSession(serialize(preparing(preprocessing)))

    # Of a line that is to get borders Pillow would make an image without pixels, which it refuses.
    sides = st.integers(8 if preprocessing.crop_mode == "border" else 1, 90)

    @settings(max_examples=40)
    @given(sides, sides, st.integers(0, 2**32 - 1), st.booleans())
    def compare(height: int, width: int, seed: int, smooth: bool) -> None:
        pixels = picture(height, width, seed, smooth)
        assert np.array_equal(-session.run(None, {"pixels": pixels[None]})[0][0], by_timm(preprocessing, pixels))

    compare()


@pytest.mark.parametrize("size", [(480, 640), (33, 500), (500, 33), (512, 512)])
def test_images_up_to_sixteen_times_as_large_lose_nothing(size: tuple[int, int]) -> None:
    preprocessing = SHAPES["square"]
    session = import_onnxruntime().InferenceSession(serialize(preparing(preprocessing)))
    pixels = picture(*size, 0, smooth=False)
    assert np.array_equal(-session.run(None, {"pixels": pixels[None]})[0][0], by_timm(preprocessing, pixels))


def test_a_batch_holds_images_of_one_size() -> None:
    preprocessing = SHAPES["wide"]
    session = import_onnxruntime().InferenceSession(serialize(preparing(preprocessing)))
    pixels = np.stack([picture(50, 70, seed, smooth=False) for seed in range(3)])
    [negative] = session.run(None, {"pixels": pixels})
    assert np.array_equal(-negative, np.stack([by_timm(preprocessing, one) for one in pixels]))


@pytest.mark.parametrize("shape", SHAPES)
def test_openvino_which_has_no_float64_is_off_by_one_level_at_most(shape: str) -> None:
    preprocessing, model = SHAPES[shape], preparing(SHAPES[shape])
    assert inline_operators(model) == 1
    core = require_openvino().Core()
    compiled = core.compile_model(core.read_model(serialize(model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    apart = []
    for seed, (height, width) in enumerate([(32, 32), (45, 60), (20, 31), (200, 150)]):
        pixels = picture(height, width, seed, smooth=False)
        difference = np.abs(compiled(pixels[None])[0][0] + by_timm(preprocessing, pixels))
        apart.append((difference * np.array(STD)[:, None, None] * 255).ravel())
    levels = np.concatenate(apart)
    assert levels.max() < 1.01
    assert (levels > 0.5).mean() < 0.01


def test_names_of_its_nodes_say_where_they_belong_once_it_is_written_out() -> None:
    model = preparing(SHAPES["square"])
    inline_operators(model)
    assert all(str(node.name).startswith("prepare/") for node in model.graph if node.name != "turned")
    assert "images" in {value.name for node in model.graph for value in node.outputs}


def test_nearest_is_refused() -> None:
    nearest = Preprocessing(32, 32, MEAN, STD, "nearest")
    assert refusal(prepare_function, nearest).code == "interpolation-in-graph"


def test_the_function_says_what_it_is() -> None:
    function = prepare_function(SHAPES["square"])
    assert (function.domain, function.name) == ("tofe", PREPARE)
