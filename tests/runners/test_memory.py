"""Images need not lie in one piece: views of larger arrays, flipped or transposed ones, are what they look like."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from tofe_export.engine.runtime import in_one_piece
from tofe_export.runners.base import Array
from tofe_export.runners.torch_runner import TorchRunner

IMAGES = np.random.default_rng(0).standard_normal((4, 3, 6, 8), dtype=np.float32)
VIEWS: list[Callable[[Array], Array]] = [
    lambda images: images,
    lambda images: images[::2],
    lambda images: images[:, ::-1],
    lambda images: images[..., 1:7],
    lambda images: images.transpose(0, 1, 3, 2),
    lambda images: np.broadcast_to(images[:1], images.shape),
    lambda images: images.astype(np.float64),
]


@pytest.mark.parametrize("view", VIEWS)
def test_an_address_tells_an_engine_all_of_the_images(view: Callable[[Array], Array]) -> None:
    images = view(IMAGES)
    found = in_one_piece(images)
    assert found.is_contiguous()
    assert found.dtype == torch.float32
    # As the engine reads it: consecutive numbers, from the address on.
    flat = torch.as_strided(found, (images.size,), (1,), found.storage_offset())
    assert np.array_equal(flat.numpy().reshape(images.shape), images.astype(np.float32))


@pytest.mark.parametrize("view", VIEWS[:-1])
def test_pytorch_takes_them_too(view: Callable[[Array], Array]) -> None:
    found = TorchRunner(lambda images: images.flatten(1)).run(view(IMAGES))["logits"]
    assert np.array_equal(found, view(IMAGES).reshape(len(view(IMAGES)), -1))
