"""Crops against what they must contain."""

import torch

from studies.images import augmented
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.training_recipe import ImagesTable

SIZE = Preprocessing(height=16, width=16, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

_RAMP = 16 / 15 * 31 / 32  # differences are from middle to middle of pixels, of a crop and of the image


def ramp() -> torch.Tensor:
    """Four images whose first channel rises from left to right and whose second rises from top to bottom."""
    steps = torch.linspace(0, 255, 32).round().to(torch.uint8)
    across, down = steps.expand(32, 32), steps.view(32, 1).expand(32, 32)
    return torch.stack([across, down, torch.full((32, 32), 51, dtype=torch.uint8)]).expand(4, 3, 32, 32)


def test_a_whole_image_is_resized_and_normalized() -> None:
    found = augmented(ramp(), ImagesTable(scale=(0.1, 1.0), flip=1.0), SIZE, whole=True)
    assert found.shape == (4, 3, 16, 16)
    assert (found[:, 0].diff(dim=2) > 0).all()  # neither mirrored
    assert (found[:, 1].diff(dim=1) > 0).all()
    torch.testing.assert_close(found[:, 2], torch.full((4, 16, 16), (51 / 255 - 0.5) / 0.25))


def test_mirrored_left_to_right_and_never_upside_down() -> None:
    torch.manual_seed(0)
    found = augmented(ramp(), ImagesTable(scale=(0.95, 1.0), flip=1.0), SIZE, whole=False)
    inner = found[:, :, 2:-2, 2:-2]
    assert (inner[:, 0].diff(dim=2) < 0).all()
    assert (inner[:, 1].diff(dim=1) > 0).all()


def test_crops_have_the_areas_that_were_asked_for() -> None:
    torch.manual_seed(0)
    squares = ramp()[:1].expand(400, 3, 32, 32)
    found = augmented(squares, ImagesTable(scale=(0.25, 0.25), flip=0.0), SIZE, whole=False) * 0.25 + 0.5
    width = (found[:, 0, 8, -1] - found[:, 0, 8, 0]) * _RAMP
    height = (found[:, 1, -1, 8] - found[:, 1, 0, 8]) * _RAMP
    area, ratio = width * height, width / height
    torch.testing.assert_close(area.mean(), torch.tensor(0.25), rtol=0.05, atol=0)
    assert ratio.min() > 0.7
    assert ratio.max() < 1.45
    assert found[:, 0, 8, 0].min() < 0.1  # from everywhere in the image
    assert found[:, 0, 8, 0].max() > 0.4
