"""A set of images in memory: squares to cut crops out of for training, and the held-out ones as a deployment sees them.

Images this small fit into memory, and every arm reads them again: decoding them each time would take longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from studies.experiments import ImageSet
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import open_source
from tofe_export.documents.training_recipe import ImagesTable
from tofe_export.files.writing import atomic_path


@dataclass(frozen=True)
class Loaded:
    """A set of images on a device.

    Attributes:
        classes: names, in label order.
        squares, labels: uint8 [n, 3, S, S] and int64 [n], for training.
        plain: float32 [m, 3, H, W], the first training images as held-out ones are prepared: they set thresholds.
        held_out, held_out_labels: float32 [n, 3, H, W] and int64 [n].
    """

    classes: tuple[str, ...]
    squares: Tensor
    labels: Tensor
    plain: Tensor
    held_out: Tensor
    held_out_labels: Tensor

    def to(self, device: torch.device) -> Loaded:
        """A copy there."""
        moved = (one.to(device) for one in (self.squares, self.labels, self.plain, self.held_out, self.held_out_labels))
        return Loaded(self.classes, *moved)


_PLAIN = 1024


def load(images: ImageSet, data: str, preprocessing: Preprocessing, cache: Path) -> Loaded:
    """The set from `data` (as `train --data` takes it), or from `cache`, which is written where there is none."""
    if not cache.exists():
        with atomic_path(cache) as path:
            torch.save(_read(images, data, preprocessing), path)
    saved = torch.load(cache, weights_only=True)
    return Loaded(tuple(saved.pop("classes")), **saved)


def _read(images: ImageSet, data: str, preprocessing: Preprocessing) -> dict[str, object]:
    train, held_out = open_source(data, "train"), open_source(data, "val")
    side = images.stored or preprocessing.height
    samples = [train[index] for index in range(len(train))]
    order = np.random.default_rng(0).permutation(len(samples))[:_PLAIN]
    others = [held_out[index] for index in range(len(held_out))]
    return {
        "classes": list(train.classes),
        "squares": torch.stack([_square(sample.image, side) for sample in samples]),
        "labels": torch.tensor([sample.label for sample in samples]),
        "plain": torch.stack([preprocessing(samples[index].image) for index in order]),
        "held_out": torch.stack([preprocessing(sample.image) for sample in others]),
        "held_out_labels": torch.tensor([sample.label for sample in others]),
    }


def _square(image: Image.Image, side: int) -> Tensor:
    """uint8 [3, S, S]: the middle of the image, its shorter side resized."""
    image = image.convert("RGB")
    if image.size != (side, side):
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image = image.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def augmented(squares: Tensor, table: ImagesTable, preprocessing: Preprocessing, whole: bool) -> Tensor:
    """Crops, perhaps mirrored, as RandomResizedCrop draws them, all images of a batch in one call.

    Args:
        squares: uint8 [B, 3, S, S].
        table: areas of the crops and the share that is mirrored; nothing else of it is used.
        preprocessing: size of the crops, mean and standard deviation.
        whole: nothing is cut or mirrored (digits).

    Returns:
        float32 [B, 3, H, W]. Random numbers come from the global generator.
    """
    size, device = len(squares), squares.device
    low, high = (1.0, 1.0) if whole else table.scale
    area = low + (high - low) * torch.rand(size, device=device)
    bend = 0.0 if whole else math.log(4 / 3)
    ratio = (bend * (2 * torch.rand(size, device=device) - 1)).exp()
    width, height = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    mirror = 1 - 2 * (torch.rand(size, device=device) < (0.0 if whole else table.flip)).float()
    across, down = ((1 - extent) * (2 * torch.rand(size, device=device) - 1) for extent in (width, height))
    zero = torch.zeros_like(area)
    affine = torch.stack([width * mirror, zero, across, zero, height, down], dim=1).view(size, 2, 3)
    grid = F.affine_grid(affine, [size, 3, preprocessing.height, preprocessing.width], align_corners=False)
    crops = F.grid_sample(squares.float() / 255, grid, padding_mode="reflection", align_corners=False)
    mean, std = (torch.tensor(one, device=device).view(3, 1, 1) for one in (preprocessing.mean, preprocessing.std))
    return (crops - mean) / std
