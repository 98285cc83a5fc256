"""Folders, photographs, batches: what is read, in which order, and what is said about files that cannot be."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import refused_as
from tofe_export.data.digits import Digits
from tofe_export.data.image_file import UnreadableImage
from tofe_export.data.image_log import ImageLog, Reason
from tofe_export.data.images import Batch, batches
from tofe_export.data.photos import Photos
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.data.sources import open_source
from tofe_export.documents.training_recipe import ImagesTable

SMALL = Preprocessing(16, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def write_image(path: Path, value: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (20, 24), value if mode in ("L", "P") else (value,) * len(mode)).save(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for number, name in enumerate(["cat", "ant", "bee"]):
        for index in range(3):
            write_image(tmp_path / name / f"{index}.png", 10 * number + index)
    return tmp_path


def test_class_folders_give_sorted_labels(tree: Path) -> None:
    source = open_source(str(tree), "any")
    assert source.classes == ("ant", "bee", "cat")
    assert [source[index].label for index in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert source[8].name == str(tree / "cat" / "2.png")


def test_flat_folder_has_no_labels(tmp_path: Path) -> None:
    for index, mode in enumerate(["L", "RGBA", "P", "CMYK"]):
        write_image(tmp_path / (f"{index}.tif" if mode == "CMYK" else f"{index}.png"), 99, mode)
    source = open_source(str(tmp_path), "any")
    (batch,) = batches(source, SMALL, 8)
    assert batch.labels is None
    assert batch.images.shape == (4, 3, 16, 16)
    assert source.classes == ()


def test_train_and_val_folders_are_told_apart(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "a" / "0.png", 1)
    write_image(tmp_path / "val" / "a" / "1.png", 1)
    assert open_source(str(tmp_path), "train")[0].name.endswith("train/a/0.png")
    assert open_source(str(tmp_path), "val")[0].name.endswith("val/a/1.png")


def test_a_folder_without_parts_holds_out_images_of_every_class(tmp_path: Path) -> None:
    for name, count in (("a", 25), ("b", 3)):
        for index in range(count):
            write_image(tmp_path / name / f"{index:02}.png", index)
    train, val, everything = (open_source(str(tmp_path), part) for part in ("train", "val", "any"))
    names = [{sample.name for sample in map(source.__getitem__, range(len(source)))} for source in (train, val)]
    assert not names[0] & names[1]
    assert len(everything) == len(train) + len(val) == 28
    assert {val[index].label for index in range(len(val))} == {0, 1}
    assert (len(train), len(val)) == (25, 3)


def test_a_lone_part_is_refused(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "a" / "0.png", 1)
    with refused_as("half-of-train-and-val"):
        open_source(str(tmp_path), "train")


def test_a_class_with_one_image_cannot_be_parted(tmp_path: Path) -> None:
    write_image(tmp_path / "a" / "0.png", 1)
    with refused_as("single-image"):
        open_source(str(tmp_path), "train")
    assert len(open_source(str(tmp_path), "any")) == 1


def _file(path: Path) -> Path:
    write_image(path / "a.png", 0)
    return path / "a.png"


def _text_only(path: Path) -> Path:
    (path / "notes.txt").write_text("no image")
    return path


def _empty_class(path: Path) -> Path:
    write_image(path / "a" / "0.png", 0)
    (path / "b").mkdir()
    return path


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda path: path / "absent", "no-images-called"),
        (_file, "images-not-a-folder"),
        (lambda path: path, "no-image"),
        (_text_only, "no-image"),
        (_empty_class, "empty-class"),
    ],
)
def test_folders_that_cannot_be_used(tmp_path: Path, make: Callable[[Path], Path], code: str) -> None:
    with refused_as(code):
        open_source(str(make(tmp_path)), "train")


def test_corrupt_images_are_named_skipped_and_counted(tree: Path) -> None:
    (tree / "ant" / "1.png").write_bytes(b"no image at all")
    whole = (tree / "bee" / "0.png").read_bytes()
    (tree / "bee" / "0.png").write_bytes(whole[: len(whole) // 2])
    log = ImageLog()
    found = list(batches(open_source(str(tree), "any"), SMALL, 2, log=log))
    assert [name for batch in found for name in batch.names] == [
        str(tree / name)
        for name in ("ant/0.png", "ant/2.png", "bee/1.png", "bee/2.png", "cat/0.png", "cat/1.png", "cat/2.png")
    ]
    assert torch.cat([batch.labels for batch in found if batch.labels is not None]).tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert list(log.left_out) == [str(tree / "ant" / "1.png"), str(tree / "bee" / "0.png")]
    assert {one.reason for one in log.left_out.values()} == {Reason.CORRUPT}
    assert log.lines()[0] == "Images: 7 read, 2 left out: 2 that cannot be decoded."


def test_a_corrupt_image_is_an_error_where_nobody_collects_them(tree: Path) -> None:
    (tree / "ant" / "1.png").write_bytes(b"")
    with refused_as("unreadable-image", UnreadableImage, path=str(tree / "ant" / "1.png")):
        list(batches(open_source(str(tree), "any"), SMALL, 4))


def test_all_corrupt_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"")
    with refused_as("no-readable-image", images=1):
        list(batches(open_source(str(tmp_path), "any"), SMALL, 4, log=ImageLog()))


def test_limit_without_seed_spreads_over_the_classes(tree: Path) -> None:
    (batch,) = batches(open_source(str(tree), "any"), SMALL, 8, limit=3)
    assert batch.labels is not None
    assert batch.labels.tolist() == [0, 1, 2]


def test_seed_shuffles_the_same_way_each_time(tree: Path) -> None:
    source = open_source(str(tree), "train")

    def names(seed: int | None) -> list[str]:
        return [name for batch in batches(source, SMALL, 4, seed=seed) for name in batch.names]

    assert names(1) == names(1)
    assert names(1) != names(2)
    assert sorted(names(1)) == names(None)


def test_augmentation_depends_on_the_seed_and_not_on_workers_or_global_state(tree: Path) -> None:
    source, transform = open_source(str(tree), "train"), SMALL.train_transform(ImagesTable())

    def images(seed: int, workers: int = 0) -> torch.Tensor:
        return torch.cat([batch.images for batch in batches(source, transform, 4, seed=seed, workers=workers)])

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = images(3)
    assert torch.equal(torch.random.get_rng_state(), before)  # and training's own numbers are left alone
    torch.manual_seed(2)
    np.random.seed(2)
    assert torch.equal(images(3), first)
    assert torch.equal(images(3, workers=1), first)
    assert not torch.equal(images(4), first)


def test_photos_are_seeded_crops_of_real_photographs() -> None:
    source = Photos(seed=3, length=4)
    (batch,) = batches(source, SMALL, 8)
    (again,) = batches(Photos(seed=3, length=4), SMALL, 8)
    (other,) = batches(Photos(seed=4, length=4), SMALL, 8)
    assert isinstance(batch, Batch)
    assert torch.equal(batch.images, again.images)
    assert not torch.equal(batch.images, other.images)
    assert batch.images.std() > 0.1
    assert batch.labels is None


@pytest.mark.parametrize("seed", [0, 1, 5])
def test_photos_to_calibrate_on_are_never_those_that_are_compared(seed: int) -> None:
    compared = {open_source("photos", "val")[index].image.tobytes() for index in range(8)}
    assert compared == {open_source("photos", "any")[index].image.tobytes() for index in range(8)}
    assert not compared & {open_source("photos", "train", seed)[index].image.tobytes() for index in range(8)}


def test_whatever_there_is_means_the_held_out_part_where_there_is_one(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "a" / "0.png", 1)
    write_image(tmp_path / "val" / "a" / "1.png", 1)
    assert open_source(str(tmp_path), "any")[0].name.endswith("val/a/1.png")
    found = [open_source("digits", part, 5) for part in ("train", "val", "any")]
    assert found == [Digits("train", 5), Digits("val", 5), Digits("val", 5)]


def test_of_each_class_the_tenth_is_held_out(tmp_path: Path) -> None:
    for name, count in (("a", 21), ("b", 9), ("c", 2)):
        for index in range(1, count + 1):
            write_image(tmp_path / name / f"{index:02}.png", index)
    held_out = open_source(str(tmp_path), "val")
    names = [str(Path(held_out[index].name).relative_to(tmp_path)) for index in range(len(held_out))]
    assert names == ["a/10.png", "a/20.png", "b/09.png", "c/02.png"]


def test_a_limit_with_a_seed_draws_from_all_images(tree: Path) -> None:
    source = open_source(str(tree), "any")
    drawn = [name for seed in range(20) for batch in batches(source, SMALL, 4, 3, seed) for name in batch.names]
    assert len(drawn) == 60
    assert len(set(drawn)) == 9, "one of them would be missed by chance once in 300 times: (2 / 3) ** 20 * 9"
    for seed in range(3):
        assert len({name for batch in batches(source, SMALL, 4, 9, seed) for name in batch.names}) == 9


def test_random_numbers_are_other_ones_at_each_place_and_for_each_seed(tree: Path) -> None:
    def drawing(_: Image.Image) -> torch.Tensor:
        return torch.tensor([torch.rand(()).item(), np.random.random(), random.random()])[:, None, None]

    source = open_source(str(tree), "any")
    found = torch.cat([batch.images for seed in (None, 1, 2) for batch in batches(source, drawing, 4, seed=seed)])
    assert found.shape == (27, 3, 1, 1)
    assert all(len(found[:, kind].unique()) == 27 for kind in range(3))
