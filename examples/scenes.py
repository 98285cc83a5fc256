"""Scenes with known contents: small pictures pasted at random places on pieces of real photographs.

Whoever pastes a picture knows its class and its box, so every label is true and none has to be drawn by hand. Without
a folder the pictures are the 1,797 handwritten digits that scikit-learn bundles; with one (`--data`) they are its
photographs. The backgrounds are pieces of scikit-learn's two photographs. Held-out scenes share neither digits,
photographs nor background pixels with those for training.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from sklearn.model_selection import train_test_split
from torch import Tensor

from tofe_export.data.images import ImageSource
from tofe_export.data.sources import open_source

PATCH = 8
SIDE = 24  # pixels: of a pasted picture; every box holds the center of a patch
HELD_OUT = 0.2
Split = Literal["train", "val"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One image and what is in it.

    Attributes:
        pixels: uint8 [size, size, 3].
        boxes: float32 [objects, 4], left, top, right, bottom in pixels.
        classes: int64 [objects].
    """

    pixels: NDArray[np.uint8]
    boxes: Tensor
    classes: Tensor


@dataclass(frozen=True)
class Scenes:
    """Scene `index` depends on (split, seed, index, size) and on nothing else.

    Attributes:
        split: "train" or "val".
        data: folder with one subfolder of images per class; None pastes digits.
        seed: of what is placed where; an epoch has its own.
    """

    split: Split
    data: str | None = None
    seed: int = 0

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the pasted classes."""
        return tuple(map(str, range(10))) if self.data is None else _folder(self.data, self.split).classes

    def many(self, indices: Sequence[int], size: int) -> list[Scene]:
        """Scenes of `size` pixels a side."""
        return [
            self._draw(np.random.default_rng((self.seed, index, self.split == "val", size)), size) for index in indices
        ]

    def _draw(self, random: Generator, size: int) -> Scene:
        canvas = _background(random, self.split, size)
        boxes, classes = [], []
        for _ in range(int(random.integers(2, 3 + size // SIDE))):
            picture, alpha, label = self._picture(random)
            # On the grid of patches: so a network this small learns to read within minutes.
            left, top = (PATCH * random.integers(0, (size - SIDE) // PATCH + 1, size=2)).tolist()
            columns, rows = np.flatnonzero(alpha.max(axis=0) > 0.25), np.flatnonzero(alpha.max(axis=1) > 0.25)
            box = (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)
            if any(_overlap(box, other) for other in boxes):
                continue
            part = canvas[top : top + SIDE, left : left + SIDE]
            part += alpha[..., None] * (picture - part)
            boxes.append(box)
            classes.append(label)
        pixels = (canvas * 255).clip(0, 255).astype(np.uint8)
        return Scene(pixels, torch.tensor(np.array(boxes), dtype=torch.float32), torch.tensor(classes))

    def _picture(self, random: Generator) -> tuple[Floats, Floats, int]:
        """Colors [SIDE, SIDE, 3] or [3], opacity [SIDE, SIDE], and the class."""
        if self.data is None:
            images, labels = _digits(self.split)
            chosen = int(random.integers(len(labels)))
            ink = np.array(colorsys.hsv_to_rgb(random.random(), random.uniform(0, 0.4), 1.0), dtype=np.float32)
            enlarged = Image.fromarray(images[chosen]).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            return ink, np.clip(np.asarray(enlarged) * 1.4 - 0.15, 0, 1), int(labels[chosen])
        index = int(random.integers(len(_folder(self.data, self.split))))
        image, label = _photograph(self.data, self.split, index)
        colors = np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BILINEAR), dtype=np.float32) / 255
        return colors, np.ones((SIDE, SIDE), np.float32), label


def as_input(scenes: Sequence[Scene]) -> Tensor:
    """Float32 [B, 3, H, W] in -1..1: the preprocessing with mean and std 0.5."""
    pixels = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def patch_centers(size: int) -> Tensor:
    """Float32 [N, 2]: x and y in pixels of each patch's center, in the order of the features."""
    steps = torch.arange(size // PATCH) * float(PATCH) + PATCH / 2
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    return torch.stack([x.flatten(), y.flatten()], dim=1)


def owner_of_patches(scene: Scene) -> Tensor:
    """Int64 [N]: the object whose box contains the center of each patch, or -1 for the background."""
    centers = patch_centers(len(scene.pixels))
    inside = (centers[:, None] >= scene.boxes[None, :, :2]) & (centers[:, None] < scene.boxes[None, :, 2:])
    inside = inside.all(dim=2)
    return torch.where(inside.any(dim=1), inside.int().argmax(dim=1), -1)


def _overlap(one: Sequence[int], other: Sequence[int]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _background(random: Generator, split: Split, size: int) -> Floats:
    """A dimmed piece of a photograph: of its left three quarters for training, of the rest for what is held out."""
    photographs = _backgrounds(split)
    photograph = photographs[random.integers(len(photographs))]
    side = int(random.integers(size, min(photograph.size) + 1))
    left, top = (int(random.integers(extent - side + 1)) for extent in photograph.size)
    piece = photograph.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
    return np.asarray(piece, dtype=np.float32) / 255 * np.float32(random.uniform(0.3, 0.7))


@functools.cache
def _backgrounds(split: Split) -> list[Image.Image]:
    wholes = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    parts = ((0, 3 * whole.width // 4) if split == "train" else (3 * whole.width // 4, whole.width) for whole in wholes)
    return [whole.crop((left, 0, right, whole.height)) for whole, (left, right) in zip(wholes, parts, strict=True)]


@functools.cache
def _digits(split: Split) -> tuple[Floats, NDArray[np.int64]]:
    """Opacity [digits, 8, 8] in 0..1, and labels; no digit is in both splits."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(np.arange(len(labels)), test_size=HELD_OUT, stratify=labels, random_state=0)
    chosen = parts[split == "val"]
    return (images.reshape(-1, 8, 8)[chosen] / 16).astype(np.float32), labels[chosen].astype(np.int64)


@functools.cache
def _folder(data: str, split: Split) -> ImageSource:
    return open_source(data, split)


@functools.cache
def _photograph(data: str, split: Split, index: int) -> tuple[Image.Image, int]:
    sample = _folder(data, split)[index]
    if sample.label is None:
        raise SystemExit(f"{data} has no labels: give a folder with one subfolder of images per class.")
    return sample.image.resize((SIDE, SIDE), Image.Resampling.BICUBIC), sample.label
