"""Crops of the two photographs that scikit-learn bundles: real images on any machine, without a download."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image

from tofe_export.data.image_log import LeftOut
from tofe_export.data.images import Sample

PHOTOGRAPHS = ("china.jpg", "flower.jpg")
SMALLEST_CROP = 96  # pixels a side; below that a crop is mostly blur once enlarged


@dataclass(frozen=True)
class Photos:
    """An `ImageSource` of `length` square crops without labels; crop `i` depends on (seed, i) and on nothing else."""

    seed: int = 0
    length: int = 256

    name = "photos"
    classes: tuple[str, ...] = ()
    left_out: ClassVar[tuple[LeftOut, ...]] = ()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"photos has no crop {index}")
        random = np.random.default_rng((self.seed, index))
        photograph = _photograph(PHOTOGRAPHS[index % len(PHOTOGRAPHS)])
        side = int(random.integers(SMALLEST_CROP, min(photograph.size) + 1))
        left = int(random.integers(photograph.width - side + 1))
        top = int(random.integers(photograph.height - side + 1))
        crop = photograph.crop((left, top, left + side, top + side))
        if random.random() < 0.5:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return Sample(crop, None, f"photos/{self.seed}/{index}")

    def at_epoch(self, epoch: int) -> Photos:
        """Itself: the crops do not change."""
        return self


@functools.cache
def _photograph(name: str) -> Image.Image:
    from sklearn.datasets import load_sample_image  # noqa: PLC0415 - a second to import: only when photographs are used

    return Image.fromarray(load_sample_image(name))
