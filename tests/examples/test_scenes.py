"""Labels of scenes are true, and what is held out was not trained on."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from examples import scenes
from examples.scenes import Scene, Scenes, owner_of_patches

COLORS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def test_every_box_shows_its_class(tmp_path: Path) -> None:
    for name, color in COLORS.items():
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("RGB", (40, 30), color).save(tmp_path / name / f"{number}.png")
    source = Scenes("train", str(tmp_path))
    assert source.classes == tuple(COLORS)
    seen = set()
    for scene in source.many(range(20), 64):
        for box, label in zip(scene.boxes.int().tolist(), scene.classes.tolist(), strict=True):
            inside = scene.pixels[box[1] : box[3], box[0] : box[2]]
            assert (inside == COLORS[source.classes[label]]).all()
            seen.add(label)
        outside = np.ones((64, 64), dtype=bool)
        for left, top, right, bottom in scene.boxes.int().tolist():
            outside[top:bottom, left:right] = False
        assert not any((scene.pixels[outside] == color).all(axis=1).any() for color in COLORS.values())
    assert seen == {0, 1, 2}


def test_digits_lie_in_their_boxes() -> None:
    for scene in Scenes("val").many(range(50), 80):
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        assert sides.min() >= scenes.PATCH, "so that every box holds the center of a patch"
        assert sides.max() <= scenes.SIDE
        owners = owner_of_patches(scene)
        assert set(owners.tolist()) == {-1, *range(len(scene.classes))}


def test_a_patch_belongs_to_the_box_around_its_center() -> None:
    scene = Scene(np.zeros((32, 32, 3), np.uint8), torch.tensor([[8.0, 0.0, 21.0, 12.0]]), torch.tensor([7]))
    grid = owner_of_patches(scene).view(4, 4)
    # Centers lie at 4, 12, 20 and 28: columns 1 and 2 are inside 8..21, row 0 is inside 0..12, and 12 is not.
    assert grid.tolist() == [[-1, 0, 0, -1], [-1] * 4, [-1] * 4, [-1] * 4]


def test_scenes_repeat_and_splits_share_nothing() -> None:
    first, again = (Scenes("train", seed=3).many([5], 64)[0] for _ in range(2))
    assert np.array_equal(first.pixels, again.pixels)
    assert not np.array_equal(first.pixels, Scenes("train", seed=4).many([5], 64)[0].pixels)
    train, held_out = (scenes._digits(split)[0] for split in ("train", "val"))
    assert len(train) + len(held_out) == 1797
    assert not {digit.tobytes() for digit in train} & {digit.tobytes() for digit in held_out}
    for one, other in zip(scenes._backgrounds("train"), scenes._backgrounds("val"), strict=True):
        assert one.width + other.width == 640
