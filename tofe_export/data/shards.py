"""Images in the tar shards of WebDataset, as they lie: nothing is unpacked.

The headers are read once. Each image is then read from its place in its shard, which is opened for as long as that
takes, so worker processes share nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.image_file import read_stored
from tofe_export.data.image_log import LeftOut, Reason, counted
from tofe_export.data.images import Sample
from tofe_export.data.labels import by_class, class_of, part_of
from tofe_export.data.shard_index import ABSENT, StoredImage, index_shards
from tofe_export.errors import InputError, count
from tofe_export.files.names import readable

CLASSES = "classes.txt"
_MOST_CLASSES = 1_000_000
_LARGEST_LIST = 1 << 26  # bytes


@dataclass(frozen=True)
class Shards:
    """An `ImageSource` over tars.

    Attributes:
        name: the folder as the user wrote it.
        classes: the lines of classes.txt, else the labels as text; empty where no image has a label.
        images: sorted by class.
        left_out: what else lies in the shards and beside them.
    """

    name: str
    classes: tuple[str, ...]
    images: tuple[StoredImage, ...]
    left_out: tuple[LeftOut, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image = self.images[index]
        return Sample(read_stored(image.content, image.name), image.label, image.name)

    def part(self, held_out: bool) -> Shards:
        """See `part_of`."""
        labels = [image.label for image in self.images]
        places = part_of(labels, held_out, lambda place: class_of(self.name, self.classes, labels[place]))
        return Shards(self.name, self.classes, tuple(self.images[place] for place in places), self.left_out)

    def at_epoch(self, epoch: int) -> Shards:
        """Itself: shards do not change."""
        return self


def open_shards(folder: Path, shards: Sequence[Path], class_files: Sequence[Path]) -> Shards:
    """The images in the shards of `folder`.

    Args:
        folder: for messages.
        shards: the tars, in order.
        class_files: where the names of the classes may be, one per line in label order; the first that is there counts.

    Raises:
        InputError: no image, labels that are not whole numbers, class names that do not fit, or see `index_shards`.
    """
    name = readable(folder)
    stats = [shard.stat() for shard in shards]
    stamps = tuple((shard, stat.st_size, stat.st_mtime_ns) for shard, stat in zip(shards, stats, strict=True))
    images, left_out = index_shards(stamps)
    if not images:
        there = f": {counted(left_out)}" if left_out else ""
        raise InputError(
            f"There is no image in the {count(len(shards), 'shard')} of {name}{there}.",
            "A shard holds KEY.jpg, or another image, and its label in KEY.cls or KEY.json.",
            code="no-image",
            path=folder,
        )
    labels = [image.label for image in images]
    known = [label for label in labels if label is not None]
    if not known:
        _refuse_wrong_labels(images)
        return Shards(name, (), images, left_out)
    without = tuple(LeftOut(image.name, Reason.LABEL, image.why) for image in images if image.label is None)
    classes = _class_names(folder, class_files, max(known))
    return Shards(name, classes, tuple(images[place] for place in by_class(labels)), (*left_out, *without))


def _refuse_wrong_labels(images: Sequence[StoredImage]) -> None:
    wrong = next((image for image in images if image.why != ABSENT), None)
    if wrong is not None:
        raise InputError(
            f"No image of the shards has a label that can be read: {wrong.name}: {wrong.why}.",
            'Write the number of the class, from 0, into KEY.cls, or into KEY.json as "label".',
            code="labels-unreadable",
            path=wrong.shard,
        )


def _class_names(folder: Path, class_files: Sequence[Path], largest: int) -> tuple[str, ...]:
    file = next((file for file in class_files if file.is_file()), None)
    if file is not None:
        names = _lines(file)
        if largest >= len(names):
            raise _bad_list(file, f"it has {count(len(names), 'name')}, and the largest label is {largest}")
        return names
    if largest >= _MOST_CLASSES:
        raise InputError(
            f"The largest label in {readable(folder)} is {largest}, which would be as many classes.",
            f"Number the classes from 0, or name them in {CLASSES}.",
            code="label-range",
            path=folder,
            label=largest,
        )
    return tuple(str(label) for label in range(largest + 1))


def _lines(file: Path) -> tuple[str, ...]:
    if file.stat().st_size > _LARGEST_LIST:
        raise _bad_list(file, f"it has more than {_LARGEST_LIST:,} bytes")
    try:
        names = [line.strip() for line in file.read_text(encoding="utf-8-sig").rstrip().split("\n")]
    except UnicodeDecodeError as error:
        raise _bad_list(file, "it is not text in UTF-8") from error
    seen: set[str] = set()
    for number, name in enumerate(names, start=1):
        if not name or name in seen:
            raise _bad_list(file, f"line {number} {f'is {readable(name)!r} again' if name else 'is empty'}")
        seen.add(name)
    return tuple(names)


def _bad_list(file: Path, why: str) -> InputError:
    return InputError(
        f"{readable(file)} does not name the classes: {why}.",
        "Write one name per line, in UTF-8, that of label 0 first.",
        code="class-list",
        path=file,
    )
