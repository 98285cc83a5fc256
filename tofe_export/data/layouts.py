"""What lies in a folder: image files, tar shards or a saved dataset. Of two kinds side by side none is chosen."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Protocol

from tofe_export.data.folder import open_folder
from tofe_export.data.images import ImageSource
from tofe_export.data.saved_dataset import SPLITS, is_dataset, open_dataset, split_folders
from tofe_export.data.scan import scan
from tofe_export.data.shards import CLASSES, open_shards
from tofe_export.data.tar_index import compressed_error
from tofe_export.errors import InputError
from tofe_export.files.names import readable

_COMPRESSED = (".tgz", *(f".tar.{how}" for how in ("gz", "bz2", "xz", "zst", "lz4")))


class WholeSource(ImageSource, Protocol):
    """A source that can be divided in two."""

    def part(self, held_out: bool) -> ImageSource:
        """Every tenth image of each class (held out), or the others; see `labels.part_of`."""


def part_folders(root: Path) -> tuple[Path, ...]:
    """The folders below `root` with the images to train and to measure on; one folder where all are together.

    Raises:
        InputError: one of train/ and val/ without the other, images beside them that may be meant, or see
            `split_folders`.
    """
    if (root / SPLITS).is_file():
        images = scan(root, deep=True).images
        _require_one_kind(
            root, {"a saved dataset": True, "tar shards": bool(_archives(root)[0]), "images": bool(images)}
        )
        return split_folders(root)
    parts = [name for name in ("train", "val") if (root / name).is_dir()]
    if len(parts) == 1 and not is_dataset(root):
        raise InputError(
            f"{readable(root)} has a folder {parts[0]}/ but not the other of train/ and val/.",
            f"Add it, or name {readable(root / parts[0])} itself.",
            code="half-of-train-and-val",
            path=root,
        )
    if not parts:
        return (root,)
    shards, dataset = bool(_archives(root)[0]), is_dataset(root)
    _require_one_kind(root, {"train/ and val/": True, "tar shards": shards, "a saved dataset": dataset})
    return root / "train", root / "val"


def open_layout(folder: Path, root: Path) -> WholeSource:
    """The images in `folder`, whatever their kind; the names of the classes of shards may also lie in `root`.

    Raises:
        InputError, MissingError: several kinds, compressed shards, or see `open_folder`, `open_shards` and
            `open_dataset`.
    """
    shards, compressed = _archives(folder)
    dataset = is_dataset(folder)
    if not (shards or compressed or dataset):
        return open_folder(folder)
    beside = scan(folder, deep=True)
    if beside.images and not (shards or dataset):
        return open_folder(folder)  # what they were unpacked from, say, lies beside them
    archives = bool(shards or compressed)
    _require_one_kind(folder, {"a saved dataset": dataset, "tar shards": archives, "images": bool(beside.images)})
    if dataset:
        return open_dataset(folder)
    if compressed:
        raise compressed_error(compressed[0])
    source = open_shards(folder, shards, (folder / CLASSES, root / CLASSES))
    read = {readable(path) for path in (*shards, folder / CLASSES)}
    others = tuple(one for one in beside.left_out if one.name not in read)
    return dataclasses.replace(source, left_out=(*others, *source.left_out))


def _archives(folder: Path) -> tuple[list[Path], list[Path]]:
    """The tars in `folder`, and the compressed ones, sorted."""
    if not folder.is_dir():
        return [], []
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    endings = [path.name.lower() for path in files]
    return (
        [path for path, name in zip(files, endings, strict=True) if name.endswith(".tar")],
        [path for path, name in zip(files, endings, strict=True) if name.endswith(_COMPRESSED)],
    )


def _require_one_kind(folder: Path, kinds: dict[str, bool]) -> None:
    there = [kind for kind, is_there in kinds.items() if is_there]
    if len(there) > 1:
        raise InputError(
            f"{readable(folder)} holds {' beside '.join(there)}: which are meant?",
            "Move each kind into a folder of its own.",
            code="mixed-images",
            path=folder,
        )
