"""Images in a dataset of the package `datasets`, as its `save_to_disk` writes it: Arrow files, which are not copied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.data.image_file import read_stored
from tofe_export.data.image_log import LeftOut, Reason
from tofe_export.data.images import Sample
from tofe_export.data.labels import by_class, class_of, part_of
from tofe_export.errors import InputError, MissingError
from tofe_export.files.names import readable
from tofe_export.files.reading import read_json

SPLITS = "dataset_dict.json"
_MARKS = ("dataset_info.json", "state.json")
_HELD_OUT = ("validation", "val", "test")  # the first that is there
_WHOLE = "Copy or save it again."


@dataclass(frozen=True, eq=False)
class SavedDataset:
    """An `ImageSource` over the rows of a dataset.

    Attributes:
        name: the folder as the user wrote it.
        classes: the names of its ClassLabel feature; empty where it has none, or no row has a label.
        rows: of each image in the dataset, sorted by class.
        labels: of each image.
        images: the `datasets.Dataset`, with the column of images alone, which are not decoded.
        left_out: rows without a label where others have one.
    """

    name: str
    classes: tuple[str, ...]
    rows: tuple[int, ...]
    labels: tuple[int | None, ...]
    images: Any
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        name = _row_name(self.name, row)
        return Sample(read_stored(lambda: self._content(row), name), self.labels[index], name)

    def _content(self, row: int) -> bytes:
        (stored,) = self.images[row].values()
        content = None if stored is None else stored["bytes"]
        if content is None:
            raise FileNotFoundError  # an empty row, or the name of a file elsewhere
        return bytes(content)

    def part(self, held_out: bool) -> SavedDataset:
        """See `part_of`."""
        places = part_of(self.labels, held_out, lambda place: class_of(self.name, self.classes, self.labels[place]))
        rows, labels = tuple(self.rows[place] for place in places), tuple(self.labels[place] for place in places)
        return SavedDataset(self.name, self.classes, rows, labels, self.images, self.left_out)

    def at_epoch(self, epoch: int) -> SavedDataset:
        """Itself: a saved dataset does not change."""
        return self


def is_dataset(folder: Path) -> bool:
    """Whether `folder` is what `Dataset.save_to_disk` writes."""
    return all((folder / mark).is_file() for mark in _MARKS)


def split_folders(folder: Path) -> tuple[Path, ...]:
    """The folders of the splits to train and to measure on, in what `DatasetDict.save_to_disk` wrote; or its only one.

    Raises:
        InputError: its list of splits cannot be read, or holds others.
    """
    listed = read_json(folder / SPLITS, _WHOLE).get("splits")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    splits = [name for name in names if Path(name).name == name]  # in this folder, not elsewhere
    held_out = next((name for name in _HELD_OUT if name in splits), None)
    if len(splits) == 1:
        return (folder / splits[0],)
    if "train" not in splits or held_out is None:
        there = f"the splits {', '.join(map(readable, splits))}" if splits else "no splits"
        raise InputError(
            f"{readable(folder)} has {there}; train is read, and validation, val or test.",
            "Name the folder of one split.",
            code="dataset-splits",
            path=folder,
        )
    return folder / "train", folder / held_out


def open_dataset(folder: Path) -> SavedDataset:
    """The images of the dataset in `folder`.

    Raises:
        InputError: it cannot be opened, has no row, no column of images, or several of images or of labels.
        MissingError: the package `datasets` is not installed.
    """
    package, name = _import_datasets(), readable(folder)
    try:
        table = package.Dataset.load_from_disk(str(folder)).with_format(None)
        image, label = (_column(table, kind, folder) for kind in (package.Image, package.ClassLabel))
        if image is None or not len(table):
            raise _no_images(folder, table.features)
        images = table.select_columns([image]).cast_column(image, package.Image(decode=False))
        labels = [None] * len(table) if label is None else table.select_columns([label])[:][label]
        names = () if label is None else tuple(table.features[label].names)
    except (InputError, PermissionError):
        raise
    except Exception as error:  # of damaged files Arrow and `datasets` raise whatever they like
        message = f"The dataset {name} cannot be opened: {type(error).__name__}."
        raise InputError(message, _WHOLE, code="dataset-unreadable", path=folder) from error
    labels = [value if value is not None and 0 <= value < len(names) else None for value in labels]
    rows = by_class(labels)
    left_out: tuple[LeftOut, ...] = ()
    if len(rows) < len(labels):
        left_out = tuple(
            LeftOut(_row_name(name, row), Reason.LABEL) for row, value in enumerate(labels) if value is None
        )
    known = any(value is not None for value in labels)
    return SavedDataset(name, names if known else (), tuple(rows), tuple(labels[row] for row in rows), images, left_out)


def _row_name(name: str, row: int) -> str:
    return f"{name}[{row}]"


def _column(table: Any, kind: type, folder: Path) -> str | None:
    """The column of this type of feature; None where there is none."""
    columns = [name for name, feature in table.features.items() if isinstance(feature, kind)]
    if len(columns) > 1:
        raise InputError(
            f"{readable(folder)} has {len(columns)} columns of type {kind.__name__}: {', '.join(columns)}.",
            f"Save it again with one of them: dataset.remove_columns({columns[1:]}).save_to_disk(FOLDER)",
            code="dataset-columns",
            path=folder,
            columns=tuple(columns),
        )
    return columns[0] if columns else None


def _no_images(folder: Path, features: Sequence[str]) -> InputError:
    return InputError(
        f"{readable(folder)} has no image: its columns are {', '.join(features)}, none of type Image with a row.",
        "Give a column that type with dataset.cast_column(NAME, datasets.Image()), and save it again.",
        code="dataset-without-images",
        path=folder,
    )


def _import_datasets() -> Any:
    try:
        import datasets  # noqa: PLC0415 - an extra: its absence is an error in words, not at import
    except ImportError as error:
        raise MissingError(
            "The package datasets, which reads this dataset, is not installed.",
            "pip install 'tofe-export[data]'",
            code="datasets-missing",
        ) from error
    return datasets
