"""Real handwritten digits (scikit-learn's bundled set: 1,797 of 8 by 8 pixels) among clutter, made on the fly.

Every canvas shows one whole digit at a random place, on a colored background, with fragments of other digits,
strokes and blobs around it: so there is something for a token selector to select. Training digits are also warped a
little; held-out ones are as they were written. Source of the idea: cluttered
MNIST (Mnih et al., arXiv 1406.6247). Nothing is downloaded and nothing is stored.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from tofe_export.data import clutter
from tofe_export.data.image_log import LeftOut
from tofe_export.data.images import Sample

Split = Literal["train", "val"]
CANVAS = 56  # pixels a side
SIDE = 40  # pixels a side that a digit is drawn at, margins included
STEP = 7  # pixels: places are multiples of it (a patch), so that a small ViT learns them within minutes
HELD_OUT = 360


@dataclass(frozen=True)
class Canvas:
    """One picture: pixels uint8 [56, 56, 3], the digit 0..9, and where it is (left, top, right, bottom)."""

    pixels: NDArray[np.uint8]
    label: int
    box: clutter.Box


@dataclass(frozen=True)
class Digits:
    """An `ImageSource` without state: picture `i` depends on (split, seed, epoch, i) and on nothing else.

    Attributes:
        split: the 1,437 digits of `train` or the 360 of `val`; no digit is in both.
        seed: of the clutter and the placement.
        epoch: another epoch draws the same digits at other places among other clutter.
    """

    split: Split = "train"
    seed: int = 0
    epoch: int = 0

    name = "digits"
    classes = tuple(str(digit) for digit in range(10))
    left_out: ClassVar[tuple[LeftOut, ...]] = ()

    def __len__(self) -> int:
        return len(_members(self.split))

    def __getitem__(self, index: int) -> Sample:
        canvas = self.canvas(index)
        return Sample(Image.fromarray(canvas.pixels), canvas.label, f"digits/{self.split}/{index}")

    def at_epoch(self, epoch: int) -> Digits:
        """The same digits, placed anew."""
        return replace(self, epoch=epoch)

    def canvas(self, index: int) -> Canvas:
        """Picture number `index`, with the digit's bounding box."""
        if not 0 <= index < len(self):
            raise IndexError(f"digits/{self.split} has no picture {index}")
        random = np.random.default_rng((self.seed, self.epoch, index, self.split == "val"))
        members = _members(self.split)
        pixels, box = _draw(random, int(members[index]), members, warp=self.split == "train")
        return Canvas(pixels, int(_labels()[members[index]]), box)


def _draw(
    random: Generator, digit: int, members: NDArray[np.int64], warp: bool
) -> tuple[NDArray[np.uint8], clutter.Box]:
    left, top = (random.integers(0, (CANVAS - SIDE) // STEP + 1, size=2) * STEP).tolist()
    glyph = _glyphs()[digit]
    if warp:
        glyph = _warped(random, glyph)
    box = _ink_box(glyph, left, top)
    canvas = clutter.background(random, CANVAS)
    clutter.add_blobs(random, canvas, int(random.integers(2, 5)))
    clutter.add_strokes(random, canvas, int(random.integers(1, 4)), box)
    _add_fragments(random, canvas, members, int(random.integers(3, 6)), box)
    clutter.paint(canvas, _as_alpha(glyph), left, top, clutter.colour(random, (0.0, 0.25), (0.9, 1.0)))
    return (canvas * 255).clip(0, 255).astype(np.uint8), box


def _add_fragments(
    random: Generator, canvas: clutter.Floats, members: NDArray[np.int64], count: int, avoid: clutter.Box
) -> None:
    """Small windows cut from other digits, a little dimmer than the digit itself."""
    for _ in range(count):
        side = int(random.integers(8, 13))
        spot = clutter.place_clear(random, CANVAS, side, avoid)
        if spot is None:
            continue
        glyph = _glyphs()[members[random.integers(len(members))]]
        row, column = random.integers(4, SIDE - side - 3, size=2).tolist()
        alpha = _as_alpha(glyph[row : row + side, column : column + side])
        clutter.paint(canvas, alpha, *spot, clutter.colour(random, (0.0, 0.35), (0.35, 0.6)))


def _warped(random: Generator, glyph: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turned, sheared, scaled and shifted a little: 1,437 digits are few enough to learn by heart."""
    angle, scale, shear = random.uniform(-0.08, 0.08), random.uniform(0.95, 1.07), random.uniform(-0.07, 0.07)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.array([[1, shear], [0, 1]]) * scale
    centre = np.full(2, SIDE / 2)
    offset = centre - matrix @ (centre + random.uniform(-0.7, 0.7, size=2))
    values = (matrix[0, 0], matrix[0, 1], offset[0], matrix[1, 0], matrix[1, 1], offset[1])
    turned = Image.fromarray(glyph).transform((SIDE, SIDE), Image.Transform.AFFINE, values, Image.Resampling.BILINEAR)
    return np.asarray(turned)


def _ink_box(glyph: NDArray[np.uint8], left: int, top: int) -> clutter.Box:
    columns, rows = np.flatnonzero(glyph.max(axis=0) > 64), np.flatnonzero(glyph.max(axis=1) > 64)
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


def _as_alpha(glyph: NDArray[np.uint8]) -> clutter.Floats:
    return glyph.astype(np.float32) * np.float32(1 / 255)


@functools.cache
def _bundled() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    from sklearn.datasets import load_digits  # noqa: PLC0415 - a second to import: only when digits are drawn

    images, labels = load_digits(return_X_y=True)
    return images.reshape(-1, 8, 8), labels.astype(np.int64)


def _labels() -> NDArray[np.int64]:
    return _bundled()[1]


@functools.cache
def _members(split: Split) -> NDArray[np.int64]:
    """Which of the 1,797 digits belong to `split`: fixed for ever, every class in the same proportion."""
    from sklearn.model_selection import train_test_split  # noqa: PLC0415 - as above

    labels = _labels()
    train, held_out = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=0)
    return np.sort(train if split == "train" else held_out)


@functools.cache
def _glyphs() -> NDArray[np.uint8]:
    """All digits as opacity [1797, SIDE, SIDE], smoothly enlarged, edges tightened."""
    enlarged = [
        np.asarray(Image.fromarray(image.astype(np.float32)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        for image in _bundled()[0]
    ]
    ink = np.clip((np.stack(enlarged) / 16 - 0.12) / 0.7, 0, 1)
    return (ink * 255).astype(np.uint8)
