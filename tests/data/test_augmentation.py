"""Training's augmentation: whatever it draws, it does not fail, and no operation leaves a single color."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.auto_augment import AugmentOp, RandAugment

from tofe_export.data.preprocessing import Preprocessing, augmenting_ops, timm_transform
from tofe_export.documents.training_recipe import ImagesTable

SMALL = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
USUAL = ImagesTable()
OPERATIONS = augmenting_ops(timm_transform(SMALL, USUAL))
STRONGEST = 10.0  # timm draws around 9 and stops here


def picture(width: int, height: int) -> Image.Image:
    """Every value of every channel, as far as there is room."""
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def applied(operation: AugmentOp, magnitude: float, image: Image.Image) -> Image.Image:
    arguments = () if operation.level_fn is None else operation.level_fn(magnitude, operation.hparams)
    changed: Image.Image = operation.aug_fn(image, *arguments, **operation.kwargs)
    return changed


def seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def test_thousands_of_draws() -> None:
    (policy,) = [step for step in timm_transform(SMALL, USUAL).transforms if isinstance(step, RandAugment)]
    image = picture(16, 16)
    seed_all(0)
    for draw in range(5000):
        # Two operations may leave a single color between them: one darkens, the next takes the low bits.
        assert policy(image).size == image.size, draw


def test_the_whole_transform_gives_images() -> None:
    transform, image = SMALL.train_transform(USUAL), picture(16, 16)
    assert transform is not SMALL
    assert SMALL.train_transform(None) is SMALL
    for seed in range(100):
        seed_all(seed)
        found = transform(image)
        assert found.shape == (3, 16, 16)
        assert found.std() > 0.01, f"seed {seed} leaves nothing of the image"


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_no_operation_destroys_an_image_at_any_magnitude(operation: AugmentOp) -> None:
    image = picture(16, 16)
    random.seed(0)
    for magnitude in np.linspace(0, STRONGEST, 101):
        changed = applied(operation, float(magnitude), image)
        assert changed.size == image.size
        assert any(low < high for low, high in changed.getextrema()), f"nothing is left at {magnitude}"


def test_posterize_is_never_asked_for_no_bits() -> None:
    (posterize,) = [operation for operation in OPERATIONS if operation.name.startswith("Posterize")]
    assert posterize.level_fn is not None
    asked = {
        posterize.level_fn(float(magnitude), posterize.hparams)[0] for magnitude in np.linspace(0, STRONGEST, 1001)
    }
    assert asked == {1, 2, 3, 4}


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (1, 500), (500, 1)])
def test_images_a_pixel_wide(size: tuple[int, int]) -> None:
    image, transform = picture(*size), SMALL.train_transform(USUAL)
    for seed in range(20):
        seed_all(seed)
        assert transform(image).isfinite().all()
    assert SMALL(image).shape == (3, 16, 16)
