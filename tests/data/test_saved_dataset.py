"""What `datasets.save_to_disk` writes is read as files are; the same images give the same batches in every form."""

from __future__ import annotations

import io
import json
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.test_folder import read
from tests.data.test_shards import png, write_shard
from tests.data.test_sources import SMALL, write_image
from tests.helpers import refused_as
from tofe_export.data.image_file import UnreadableImage
from tofe_export.data.image_log import ImageLog, Reason
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.saved_dataset import SavedDataset
from tofe_export.data.sources import is_ambiguous, open_source
from tofe_export.documents.training_recipe import ImagesTable
from tofe_export.errors import MissingError

datasets = pytest.importorskip("datasets", reason="datasets is in the extra data")
CLASSES = ("ant", "bee", "cat")


def features(**more: Any) -> Any:
    return datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES)), **more})


def dataset(contents: Sequence[bytes | None], labels: Sequence[int | None], **more: Any) -> Any:
    images = [None if content is None else {"bytes": content, "path": None} for content in contents]
    columns = {"image": images, "label": list(labels), **dict.fromkeys(more, images)}
    return datasets.Dataset.from_dict(columns, features(**more))


def save(folder: Path, contents: Sequence[bytes | None], labels: Sequence[int | None], **more: Any) -> Path:
    dataset(contents, labels, **more).save_to_disk(str(folder))
    return folder


def opened(folder: Path, part: str = "any") -> SavedDataset:
    source = open_source(str(folder), part)  # type: ignore[arg-type]
    assert isinstance(source, SavedDataset)
    return source


def test_the_same_images_give_the_same_batches_in_every_form(tmp_path: Path) -> None:
    """Files, shards and a dataset, in other orders of their classes: every batch is equal to the last bit."""
    random = np.random.default_rng(0)
    stored: list[tuple[str, int, bytes]] = []
    for index in range(40):
        image = Image.fromarray(random.integers(0, 256, (20 + index % 7, 24, 3), dtype=np.uint8))
        ending, mode = (("jpg", "L"), ("png", "RGBA"), ("webp", "RGB"), ("jpg", "RGB"))[index % 4]
        content = io.BytesIO()
        image.convert(mode).save(content, {"jpg": "JPEG"}.get(ending, ending))
        stored.append((f"{index:03}.{ending}", int(random.integers(3)), content.getvalue()))
    stored.append(("040.png", 1, np.ascontiguousarray(random.integers(0, 2**16, 256, np.uint16)).tobytes()))  # corrupt
    sixteen = io.BytesIO()
    Image.fromarray(random.integers(0, 2**16, (16, 16), np.uint16)).save(sixteen, "PNG")
    stored.append(("041.png", 2, sixteen.getvalue()))
    for name, label, content in stored:
        path = tmp_path / "folder" / CLASSES[label] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for number, half in enumerate((stored[:15], stored[15:])):
        members = {name: content for name, _, content in half}
        members |= {f"{name.partition('.')[0]}.cls": str(label).encode() for name, label, _ in half}
        write_shard(tmp_path / "shards" / f"{number}.tar", members)
    (tmp_path / "shards" / "classes.txt").write_text("\n".join(CLASSES))
    save(tmp_path / "dataset", [content for _, _, content in stored], [label for _, label, _ in stored])

    forms = ("folder", "shards", "dataset")
    for part in ("any", "train", "val"):
        sources = [open_source(str(tmp_path / form), part) for form in forms]  # type: ignore[arg-type]
        assert [source.classes for source in sources] == [CLASSES] * 3
        for seed, transform in ((None, SMALL), (7, SMALL.train_transform(ImagesTable()))):
            logs = [_all_batches(source, transform, seed) for source in sources]
            for images, labels, reasons in logs[1:]:
                assert torch.equal(images, logs[0][0])
                assert torch.equal(labels, logs[0][1])
                assert reasons == logs[0][2]


def _all_batches(source: ImageSource, transform: Any, seed: int | None) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    log = ImageLog()
    found = list(batches(source, transform, 8, seed=seed, log=log))
    labels = [batch.labels for batch in found if batch.labels is not None]
    details = [one.detail for one in log.left_out.values()]
    return torch.cat([batch.images for batch in found]), torch.cat(labels), details


def test_rows_are_sorted_by_class_and_named(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "d", [png(value) for value in range(4)], [2, 0, 2, 0]))
    assert source.classes == CLASSES
    found = [source[index] for index in range(4)]
    assert [sample.label for sample in found] == [0, 0, 2, 2]
    assert [sample.name for sample in found] == [f"{tmp_path}/d[{row}]" for row in (1, 3, 0, 2)]
    assert [sample.image.getpixel((0, 0)) for sample in found] == [(value,) * 3 for value in (1, 3, 0, 2)]
    assert source.at_epoch(1) is source


def test_formats_and_selections_that_were_saved_do_not_matter(tmp_path: Path) -> None:
    whole = dataset([png(value) for value in range(4)], [0, 1, 2, 0]).with_format("numpy")
    whole.select([3, 1]).save_to_disk(str(tmp_path / "d"))
    source = opened(tmp_path / "d")
    assert [source[index].image.getpixel((0, 0)) for index in range(2)] == [(3,) * 3, (1,) * 3]
    assert source.labels == (0, 1)


@pytest.mark.parametrize("held_out", ["validation", "val", "test"])
def test_splits_of_a_dictionary(held_out: str, tmp_path: Path) -> None:
    splits = {"train": dataset([png(1)], [0]), held_out: dataset([png(2), png(3)], [0, 1]), "more": dataset([], [])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path))
    assert [len(opened(tmp_path, part)) for part in ("train", "val", "any")] == [1, 2, 2]


def test_a_lone_split_is_divided(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": dataset([png(value) for value in range(20)], [0, 1] * 10)}).save_to_disk(
        str(tmp_path)
    )
    assert opened(tmp_path, "val").rows == (18, 19)
    assert [len(opened(tmp_path, part)) for part in ("train", "any")] == [18, 20]


def test_splits_that_are_not_train_and_held_out_are_refused(tmp_path: Path) -> None:
    datasets.DatasetDict({"a": dataset([png()], [0]), "b": dataset([png()], [0])}).save_to_disk(str(tmp_path))
    with refused_as("dataset-splits"):
        open_source(str(tmp_path), "any")
    assert len(opened(tmp_path / "b")) == 1
    for splits in ({}, {"splits": []}, {"splits": "train"}, {"splits": [1, None, "/etc"]}):
        (tmp_path / "dataset_dict.json").write_text(json.dumps(splits))
        with refused_as("dataset-splits"):
            open_source(str(tmp_path), "any")


def test_train_and_val_may_be_datasets(tmp_path: Path) -> None:
    save(tmp_path / "train", [png(1)], [0])
    save(tmp_path / "val", [png(1), png(2)], [0, 1])
    assert [len(opened(tmp_path, part)) for part in ("train", "val")] == [1, 2]


def test_rows_without_image_or_label_are_counted(tmp_path: Path) -> None:
    save(tmp_path / "d", [png(1), None, b"no image", png(2), png(3)], [0, 1, 1, -1, None])
    log = read(tmp_path / "d")
    assert log.read == 1
    assert {Path(name).name: one.reason for name, one in log.left_out.items()} == {
        "d[1]": Reason.GONE,
        "d[2]": Reason.CORRUPT,
        "d[3]": Reason.LABEL,
        "d[4]": Reason.LABEL,
    }


@pytest.mark.parametrize("labelled", [True, False], ids=["labels of -1", "no column"])
def test_without_any_label_they_are_a_flat_folder(labelled: bool, tmp_path: Path) -> None:
    whole = dataset([png(1), png(2)], [-1, -1])
    (whole if labelled else whole.remove_columns("label")).save_to_disk(str(tmp_path))
    source = opened(tmp_path)
    assert source.classes == ()
    assert [source[index].label for index in range(2)] == [None, None]


def test_a_class_with_one_image_cannot_be_parted(tmp_path: Path) -> None:
    save(tmp_path / "d", [png(1), png(2), png(3)], [0, 0, 1])
    with refused_as("single-image") as caught:
        open_source(str(tmp_path / "d"), "train")
    assert f"The class bee of {tmp_path}/d holds" in caught.value.message


def test_several_columns_of_images_are_named(tmp_path: Path) -> None:
    save(tmp_path / "d", [png()], [0], mask=datasets.Image())
    with refused_as("dataset-columns", columns=("image", "mask")) as caught:
        open_source(str(tmp_path / "d"), "any")
    assert "remove_columns(['mask'])" in caught.value.next_step


def test_a_dataset_without_images(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(str(tmp_path / "text"))
    with refused_as("dataset-without-images"):
        open_source(str(tmp_path / "text"), "any")
    with refused_as("dataset-unreadable"):  # of no rows `datasets` saves no file, and opens none
        open_source(str(save(tmp_path / "empty", [], [])), "any")


def test_a_dataset_beside_other_images_is_refused(tmp_path: Path) -> None:
    write_image(save(tmp_path / "a", [png()], [0]) / "ant" / "0.png", 1)
    write_shard(save(tmp_path / "b", [png()], [0]) / "0.tar", {"a.png": png()})
    datasets.DatasetDict({"train": dataset([png()], [0])}).save_to_disk(str(tmp_path / "c"))
    write_image(tmp_path / "c" / "0.png", 1)
    for name in "abc":
        with refused_as("mixed-images"):
            open_source(str(tmp_path / name), "any")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", b""),
        ("state.json", b"{}"),
        ("state.json", b'{"_data_files": [{"filename": "gone.arrow"}]}'),
        ("dataset_info.json", b"[" * 100_000),
        ("dataset_info.json", b'{"features": {"image": {"_type": "Sculpture"}}}'),
        ("data-00000-of-00001.arrow", b""),
    ],
)
def test_a_damaged_dataset_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    (save(tmp_path / "d", [png()], [0]) / name).write_bytes(content)
    with refused_as("dataset-unreadable"):
        open_source(str(tmp_path / "d"), "any")


def test_a_cut_arrow_file_is_refused(tmp_path: Path) -> None:
    (file,) = save(tmp_path / "d", [png(value) for value in range(50)], [0] * 50).glob("*.arrow")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with refused_as("dataset-unreadable"):
        open_source(str(tmp_path / "d"), "any")


def test_copies_and_workers_read_the_same(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "d", [png(value) for value in range(6)], [0, 1] * 3))
    images = [
        torch.cat([batch.images for batch in batches(one, SMALL, 2, workers=workers)])
        for one, workers in ((source, 0), (pickle.loads(pickle.dumps(source)), 0), (source, 2))
    ]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def test_an_unreadable_row_is_an_error_where_nobody_collects_them(tmp_path: Path) -> None:
    source = opened(save(tmp_path / "d", [b""], [0]))
    with pytest.raises(UnreadableImage, match=r"d\[0\] cannot be read"):
        source[0]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "photos", [png()], [0])
    monkeypatch.setitem(sys.modules, "datasets", None)
    monkeypatch.chdir(tmp_path)
    with refused_as("datasets-missing", MissingError) as caught:
        open_source("./photos", "any")
    assert caught.value.next_step == "pip install 'tofe-export[data]'"
    assert is_ambiguous("photos")
