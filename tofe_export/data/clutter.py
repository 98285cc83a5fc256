"""What surrounds a digit on its canvas: a soft colored background, blobs, strokes, grain. Textures are drawn once
a process and then only placed, so that a canvas costs a fraction of a millisecond."""

from __future__ import annotations

import colorsys
import functools

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
Box = tuple[int, int, int, int]
"""left, top, right, bottom in pixels; right and bottom are exclusive."""

TEXTURES = 64  # of each kind: enough that no pattern is worth remembering
_OVERSAMPLE = 4


def colour(random: Generator, saturation: tuple[float, float], value: tuple[float, float]) -> Floats:
    """A color of any hue, float32 [3] in 0..1."""
    hue, s, v = random.random(), random.uniform(*saturation), random.uniform(*value)
    return np.array(colorsys.hsv_to_rgb(hue, s, v), dtype=np.float32)


def background(random: Generator, size: int) -> Floats:
    """Two dark colors mixed by a cloud, with fine grain: float32 [size, size, 3] in 0..1."""
    clouds, grain = _clouds(size), _grain(size)
    first, second = colour(random, (0.3, 0.8), (0.05, 0.28)), colour(random, (0.3, 0.8), (0.05, 0.28))
    mix = clouds[random.integers(len(clouds))][..., None]
    row, column = random.integers(size, size=2)
    speckle = grain[row : row + size, column : column + size, None]
    mixed: Floats = first + (second - first) * mix + speckle
    return mixed


def paint(canvas: Floats, alpha: Floats, left: int, top: int, ink: Floats) -> None:
    """Blends `ink` [3] into `canvas` [H, W, 3] in place, by `alpha` [h, w], cut off at the canvas' edges."""
    height, width = canvas.shape[:2]
    x0, y0 = max(left, 0), max(top, 0)
    x1, y1 = min(left + alpha.shape[1], width), min(top + alpha.shape[0], height)
    if x0 >= x1 or y0 >= y1:
        return
    part = canvas[y0:y1, x0:x1]
    part += alpha[y0 - top : y1 - top, x0 - left : x1 - left, None] * (ink - part)


def place_clear(random: Generator, size: int, side: int, avoid: Box) -> tuple[int, int] | None:
    """left, top of a square of `side` pixels that stays clear of `avoid`, or None if none was found in 6 tries."""
    for left, top in random.integers(-side // 3, size - side + side // 3 + 1, size=(6, 2)).tolist():
        if left + side <= avoid[0] or left >= avoid[2] or top + side <= avoid[1] or top >= avoid[3]:
            return left, top
    return None


def add_blobs(random: Generator, canvas: Floats, count: int) -> None:
    """Soft, dim discs anywhere, under everything else."""
    size = canvas.shape[0]
    for texture, x, y in random.integers([TEXTURES, size, size], size=(count, 3)).tolist():
        blob = _blobs()[texture]
        side = blob.shape[0]
        paint(canvas, blob * np.float32(0.6), x - side // 2, y - side // 2, colour(random, (0.3, 0.9), (0.2, 0.45)))


def add_strokes(random: Generator, canvas: Floats, count: int, avoid: Box) -> None:
    """Thin lines and arcs beside the digit."""
    for texture in random.integers(TEXTURES, size=count).tolist():
        stroke = _strokes()[texture]
        spot = place_clear(random, canvas.shape[0], stroke.shape[0], avoid)
        if spot is not None:
            paint(canvas, stroke, *spot, colour(random, (0.0, 0.6), (0.3, 0.6)))


@functools.cache
def _clouds(size: int) -> Floats:
    """[TEXTURES, size, size] in 0..1: 3 by 3 random values, smoothly enlarged."""
    random = np.random.default_rng(1)
    small = [Image.fromarray(random.random((3, 3), dtype=np.float32)) for _ in range(TEXTURES)]
    large = np.stack([np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)) for image in small])
    return large.clip(0, 1).astype(np.float32)


@functools.cache
def _grain(size: int) -> Floats:
    """[2 size, 2 size]: noise to cut windows from."""
    return np.random.default_rng(2).normal(0, 0.025, (2 * size, 2 * size)).astype(np.float32)


@functools.cache
def _blobs() -> tuple[Floats, ...]:
    axes = (np.linspace(-1, 1, side, dtype=np.float32) for side in np.random.default_rng(3).integers(8, 20, TEXTURES))
    return tuple(np.clip((1 - np.hypot(axis[:, None], axis)) * 2.5, 0, 1).astype(np.float32) for axis in axes)


@functools.cache
def _strokes() -> tuple[Floats, ...]:
    random = np.random.default_rng(4)
    return tuple(_stroke(random) for _ in range(TEXTURES))


def _stroke(random: Generator) -> Floats:
    """A line or an arc, drawn large and reduced, so that its edges are smooth."""
    side = int(random.integers(9, 17))
    large = side * _OVERSAMPLE
    image = Image.new("L", (large, large))
    width = int(random.integers(5, 9))
    box = [width, width, large - width, large - width]
    if random.random() < 0.5:
        start = float(random.uniform(0, 360))
        ImageDraw.Draw(image).arc(box, start, start + float(random.uniform(60, 150)), fill=255, width=width)
    else:
        angle = random.uniform(0, np.pi)
        reach = (large / 2 - width) * np.array([np.cos(angle), np.sin(angle)])
        ends = [*(large / 2 - reach), *(large / 2 + reach)]
        ImageDraw.Draw(image).line([float(end) for end in ends], fill=255, width=width)
    reduced = image.filter(ImageFilter.GaussianBlur(1.5)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(reduced, dtype=np.float32) * np.float32(1 / 255)
