"""Preprocessing as a graph of standard operators: pixels as uint8 in, the images that Pillow and timm make of them out.

ONNX's own Resize has Pillow's filters (`antialias`), but TensorRT does not parse it and ONNX Runtime's kernel for CUDA
takes another cubic coefficient. So a resize is what it is by definition, two matrix products, and the graph makes the
matrices from the size of the image.

Pillow rounds the weights of its filters to 22 bits and each of its two passes to whole pixel values (Pillow,
src/libImaging/Resample.c). A weight is split here into 11 and 11 bits, so that all products and sums are integers
below 2^24, which float32 represents exactly, up to 64 weights for a pixel (images 16 times as large as the input).
The weights themselves need float64: a runtime that computes them in float32 misses single pixels by one level.
TensorRT takes uint8 for nothing but a Cast, which therefore comes first.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
from PIL import Image

from tofe_export.data.preprocessing import CENTER, Preprocessing
from tofe_export.errors import InputError
from tofe_export.graph.functions import OPSET
from tofe_export.model.operators import DOMAIN

PREPARE = "PrepareImages"
_FILTERS = {
    "bilinear": """
    falling_{axis} = Sub (one_double, distance_{axis})
    weight_{axis} = Max (falling_{axis}, zero_double)
""",
    # Keys' cubic with a = -0.5, Pillow's choice.
    "bicubic": """
    near_3_{axis} = Mul (distance_{axis}, three_halves)
    near_2_{axis} = Sub (near_3_{axis}, five_halves)
    near_1_{axis} = Mul (near_2_{axis}, distance_{axis})
    near_0_{axis} = Mul (near_1_{axis}, distance_{axis})
    near_{axis} = Add (near_0_{axis}, one_double)
    far_4_{axis} = Sub (distance_{axis}, five_double)
    far_3_{axis} = Mul (far_4_{axis}, distance_{axis})
    far_2_{axis} = Add (far_3_{axis}, eight_double)
    far_1_{axis} = Mul (far_2_{axis}, distance_{axis})
    far_0_{axis} = Sub (far_1_{axis}, four_double)
    far_{axis} = Mul (far_0_{axis}, minus_half)
    is_near_{axis} = Less (distance_{axis}, one_double)
    is_far_{axis} = Less (distance_{axis}, two_double)
    near_or_far_{axis} = Where (is_near_{axis}, near_{axis}, far_{axis})
    weight_{axis} = Where (is_far_{axis}, near_or_far_{axis}, zero_double)
""",
}
_CONSTANTS = """
    zero = Constant <value_ints = [0]> ()
    one = Constant <value_ints = [1]> ()
    two = Constant <value_ints = [2]> ()
    no_axis = Constant <value_int = 0> ()
    next_one = Constant <value_int = 1> ()
    zero_double = Constant <value = double {0}> ()
    one_double = Constant <value = double {1}> ()
    two_double = Constant <value = double {2}> ()
    four_double = Constant <value = double {4}> ()
    five_double = Constant <value = double {5}> ()
    eight_double = Constant <value = double {8}> ()
    half_double = Constant <value = double {0.5}> ()
    minus_half = Constant <value = double {-0.5}> ()
    three_halves = Constant <value = double {1.5}> ()
    five_halves = Constant <value = double {2.5}> ()
    unit = Constant <value = double {4194304}> ()
    split = Constant <value = double {2048}> ()
    half_split = Constant <value = double {1024}> ()
    zero_float = Constant <value = float {0}> ()
    half = Constant <value = float {0.5}> ()
    split_float = Constant <value = float {2048}> ()
    half_split_float = Constant <value = float {1024}> ()
    most = Constant <value = float {255}> ()
    image_height = Shape <start = 1, end = 2> (image)
    image_width = Shape <start = 2, end = 3> (image)
"""
_SHORTER_SIDE = """
    short = Min (image_height, image_width)
    resized_side = Constant <value_ints = [{side}]> ()
    resized_area_height = Mul (image_height, resized_side)
    resized_area_width = Mul (image_width, resized_side)
    resized_height = Div (resized_area_height, short)
    resized_width = Div (resized_area_width, short)
"""
_BOTH_SIDES = """
    resized_height = Constant <value_ints = [{height}]> ()
    resized_width = Constant <value_ints = [{width}]> ()
"""
_KEPT_RATIO = """
    scaled_height = Constant <value = double {{{height}}}> ()
    scaled_width = Constant <value = double {{{width}}}> ()
    height_double = Cast <to = 11> (image_height)
    width_double = Cast <to = 11> (image_width)
    ratio_height = Div (height_double, scaled_height)
    ratio_width = Div (width_double, scaled_width)
    ratio = {choice} (ratio_height, ratio_width)
    exact_height = Div (height_double, ratio)
    exact_width = Div (width_double, ratio)
    rounded_height = Round (exact_height)
    rounded_width = Round (exact_width)
    whole_height = Cast <to = 7> (rounded_height)
    whole_width = Cast <to = 7> (rounded_width)
    resized_height = Max (whole_height, one)
    resized_width = Max (whole_width, one)
"""
_AXIS = """
    crop_{axis} = Constant <value_ints = [{crop}]> ()
    crop_end_{axis} = Constant <value_int = {crop}> ()
    excess_{axis} = Sub (resized_{axis}, crop_{axis})
    excess_float_{axis} = Cast <to = 1> (excess_{axis})
    middle_{axis} = Mul (excess_float_{axis}, half)
    cut_{axis} = Round (middle_{axis})
    padded_{axis} = Ceil (middle_{axis})
    is_padded_{axis} = Less (middle_{axis}, zero_float)
    begin_float_{axis} = Where (is_padded_{axis}, padded_{axis}, cut_{axis})
    begin_{axis} = Cast <to = 7> (begin_float_{axis})
    counted_{axis} = Range (no_axis, crop_end_{axis}, next_one)
    place_{axis} = Add (counted_{axis}, begin_{axis})
    last_{axis} = Sub (resized_{axis}, one)
    not_before_{axis} = Max (place_{axis}, zero)
    within_{axis} = Min (not_before_{axis}, last_{axis})

    image_end_{axis} = Squeeze (image_{axis}, zero)
    pixel_{axis} = Range (no_axis, image_end_{axis}, next_one)
    twice_place_{axis} = Mul (within_{axis}, two)
    odd_place_{axis} = Add (twice_place_{axis}, one)
    place_units_{axis} = Mul (odd_place_{axis}, image_{axis})
    twice_pixel_{axis} = Mul (pixel_{axis}, two)
    odd_pixel_{axis} = Add (twice_pixel_{axis}, one)
    pixel_units_{axis} = Mul (odd_pixel_{axis}, resized_{axis})
    place_column_{axis} = Unsqueeze (place_units_{axis}, one)
    pixel_row_{axis} = Unsqueeze (pixel_units_{axis}, zero)
    difference_{axis} = Sub (place_column_{axis}, pixel_row_{axis})
    absolute_{axis} = Abs (difference_{axis})
    wider_{axis} = Max (image_{axis}, resized_{axis})
    step_{axis} = Mul (wider_{axis}, two)
    absolute_double_{axis} = Cast <to = 11> (absolute_{axis})
    step_double_{axis} = Cast <to = 11> (step_{axis})
    distance_{axis} = Div (absolute_double_{axis}, step_double_{axis})
{filter}
    total_{axis} = ReduceSum <keepdims = 1> (weight_{axis}, one)
    share_{axis} = Div (weight_{axis}, total_{axis})
    share_size_{axis} = Abs (share_{axis})
    share_sign_{axis} = Sign (share_{axis})
    exact_units_{axis} = Mul (share_size_{axis}, unit)
    raised_units_{axis} = Add (exact_units_{axis}, half_double)
    whole_units_{axis} = Floor (raised_units_{axis})
    units_{axis} = Mul (whole_units_{axis}, share_sign_{axis})
    raised_{axis} = Add (units_{axis}, half_split)
    parts_{axis} = Div (raised_{axis}, split)
    upper_{axis} = Floor (parts_{axis})
    upper_units_{axis} = Mul (upper_{axis}, split)
    lower_{axis} = Sub (units_{axis}, upper_units_{axis})
    upper_float_{axis} = Cast <to = 1> (upper_{axis})
    lower_float_{axis} = Cast <to = 1> (lower_{axis})
"""
_PASS = """
    {name}_upper_sum = MatMul ({upper})
    {name}_lower_sum = MatMul ({lower})
    {name}_lower_carry = Div ({name}_lower_sum, split_float)
    {name}_carry = Floor ({name}_lower_carry)
    {name}_with_carry = Add ({name}_upper_sum, {name}_carry)
    {name}_with_half = Add ({name}_with_carry, half_split_float)
    {name}_exact_level = Div ({name}_with_half, split_float)
    {name}_level = Floor ({name}_exact_level)
    {name} = Clip ({name}_level, zero_float, most)
"""
_LEVELS = """
    levels_last = Cast <to = 1> (image)
    levels = Transpose <perm = [0, 3, 1, 2]> (levels_last)
    upper_columns = Transpose (upper_float_width)
    lower_columns = Transpose (lower_float_width)
"""
_EITHER_ORDER = """
    fewer_rows = Sub (image_height, resized_height)
    fewer_columns = Sub (image_width, resized_width)
    twice_fewer_columns = Mul (fewer_columns, two)
    are_rows_fewer = Less (zero, fewer_rows)
    are_rows_far_fewer = Less (twice_fewer_columns, fewer_rows)
    is_height_first = And (are_rows_fewer, are_rows_far_fewer)
    pixels = If (is_height_first) <
        then_branch = height_first () => (float[n, c, h, w] height_then_width) {{{height_first}}},
        else_branch = width_first () => (float[n, c, h, w] width_then_height) {{{width_first}}}
    >
"""
_BORDER = """
    place_inside_{axis} = Equal (place_{axis}, within_{axis})
"""
_FILLED = """
    rows_inside = Unsqueeze (place_inside_height, one)
    inside = And (rows_inside, place_inside_width)
    border = Constant <value = float [3, 1, 1] {{{fill}}}> ()
    prepared = Where (inside, pixels, border)
"""
_UNFILLED = """
    prepared = Identity (pixels)
"""
_NORMALIZED = """
    mean = Constant <value = float [3, 1, 1] {{{mean}}}> ()
    std = Constant <value = float [3, 1, 1] {{{std}}}> ()
    scaled = Div (prepared, most)
    centered = Sub (scaled, mean)
    images = Div (centered, std)
"""


def prepare_function(preprocessing: Preprocessing) -> ir.Function:
    """`tofe::PrepareImages`: uint8 [B, H, W, 3], any H and W, to float32 [B, 3, height, width] as `preprocessing` does.

    The steps and their rounding are those of timm's evaluation transform and of torchvision's and Pillow's functions
    that it calls; the tests compare with these.

    Raises:
        InputError: its interpolation is "nearest", whose rounding in Pillow cannot be had from standard operators.
    """
    if preprocessing.interpolation not in _FILTERS:
        raise InputError(
            f"Images are resized by {preprocessing.interpolation!r}, which has no graph.",
            "Leave `input` as it is, and prepare images before the model.",
            code="interpolation-in-graph",
            interpolation=preprocessing.interpolation,
        )
    shown = _BORDER.format(axis="height") + _BORDER.format(axis="width") if preprocessing.crop_mode == "border" else ""
    last = _FILLED.format(fill=_numbers(*(round(255 * v) for v in preprocessing.mean))) if shown else _UNFILLED
    body = "".join(
        (
            _CONSTANTS,
            _resized(preprocessing),
            _axis("height", preprocessing),
            _axis("width", preprocessing),
            _LEVELS,
            _passes(),
            shown,
            last,
            _NORMALIZED.format(mean=_numbers(*preprocessing.mean), std=_numbers(*preprocessing.std)),
        )
    )
    text = f'<opset_import: ["": {OPSET}], domain: "{DOMAIN}">\n{PREPARE} (image) => (images)\n{{{body}}}\n'
    return ir.serde.deserialize_function(onnx.parser.parse_function(text))


def _resized(preprocessing: Preprocessing) -> str:
    """To which size the image is resized before it is cropped."""
    height, width = (math.floor(side / preprocessing.crop_pct) for side in (preprocessing.height, preprocessing.width))
    if preprocessing.crop_mode == "squash":
        return _BOTH_SIDES.format(height=height, width=width)
    if preprocessing.crop_mode == CENTER and height == width:
        return _SHORTER_SIDE.format(side=height)
    choice = "Min" if preprocessing.crop_mode == CENTER else "Max"
    return _KEPT_RATIO.format(height=height, width=width, choice=choice)


def _axis(axis: str, preprocessing: Preprocessing) -> str:
    """Two matrices, [pixels of the input, pixels of the image], that are the filter along one axis."""
    filters = _FILTERS[preprocessing.interpolation].format(axis=axis)
    return _AXIS.format(axis=axis, crop=getattr(preprocessing, axis), filter=filters)


def _passes() -> str:
    """The filter along both axes, in the order of the Pillow that is installed."""
    if not pillow_may_begin_with_height():
        return _pass("width", "levels", "after_width") + _pass("height", "after_width", "pixels")
    width_first = _pass("width", "levels", "after_width") + _pass("height", "after_width", "width_then_height")
    height_first = _pass("height", "levels", "after_height") + _pass("width", "after_height", "height_then_width")
    return _EITHER_ORDER.format(height_first=height_first, width_first=width_first)


def _pass(axis: str, source: str, name: str) -> str:
    if axis == "width":
        return _PASS.format(name=name, upper=f"{source}, upper_columns", lower=f"{source}, lower_columns")
    return _PASS.format(name=name, upper=f"upper_float_height, {source}", lower=f"lower_float_height, {source}")


@functools.cache
def pillow_may_begin_with_height() -> bool:
    """Whether this Pillow resizes the height first where it shrinks more than twice as much as the width does.

    Older ones always begin with the width. The results differ, for each pass rounds.
    """
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 8), dtype=np.uint8))
    by_steps = noise.resize((8, 16), Image.Resampling.BICUBIC).resize((7, 16), Image.Resampling.BICUBIC)
    return by_steps.tobytes() == noise.resize((7, 16), Image.Resampling.BICUBIC).tobytes()


def _numbers(*values: float) -> str:
    return ", ".join(repr(float(value)) for value in values)
