"""Images in a folder: an ImageFolder tree (one folder per class) or a flat folder without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.image_file import common_endings, read_image
from tofe_export.data.image_log import LeftOut, Reason, counted
from tofe_export.data.images import Sample
from tofe_export.data.scan import Listing, scan
from tofe_export.errors import InputError, count
from tofe_export.files.names import readable
from tofe_export.files.places import reason_of

_HOLD_OUT = 10  # one image in so many
_LAYOUT = "Give a folder of images, or a folder with one subfolder of images per class."


@dataclass(frozen=True)
class Folder:
    """An `ImageSource` over files; a file is opened when its sample is read, and only then.

    Attributes:
        name: the folder as the user wrote it.
        classes: subfolder names, sorted; empty for a flat folder.
        files: every image with its class index (None in a flat folder), sorted.
        left_out: what else lies there.
        linked: an image is a symbolic link, so one file may be there twice.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[tuple[Path, int | None], ...]
    left_out: tuple[LeftOut, ...] = ()
    linked: bool = False

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.files[index]
        return Sample(read_image(path), label, readable(path))

    def part(self, held_out: bool) -> Folder:
        """Every tenth image of each class (held out), or the others; of fewer than ten images the last is held out.

        Raises:
            InputError: a class with a single image, which cannot be in both parts.
        """
        parts: tuple[list[tuple[Path, int | None]], list[tuple[Path, int | None]]] = ([], [])
        for label in sorted({label for _, label in self.files}, key=lambda label: -1 if label is None else label):
            of_label = [file for file in self.files if file[1] == label]
            if len(of_label) < 2:
                raise InputError(
                    f"{readable(of_label[0][0].parent)} holds a single image, too few to train on some and hold out "
                    "others.",
                    "Add images, or make the two parts yourself: train/ and val/.",
                    code="single-image",
                    path=of_label[0][0].parent,
                )
            step = min(_HOLD_OUT, len(of_label))
            for place, file in enumerate(of_label, start=1):
                parts[place % step == 0].append(file)
        chosen, left_out = parts[held_out], self.left_out
        if self.linked and not held_out:
            secret = {os.path.realpath(path) for path, _ in parts[True]}
            twice = {path for path, _ in chosen if os.path.realpath(path) in secret}
            chosen = [file for file in chosen if file[0] not in twice]
            left_out += tuple(
                LeftOut(readable(path), Reason.HELD_OUT, "a link to a held-out image") for path in sorted(twice)
            )
        return Folder(self.name, self.classes, tuple(chosen), left_out, self.linked)

    def at_epoch(self, epoch: int) -> Folder:
        """Itself: files do not change."""
        return self


def open_folder(path: Path) -> Folder:
    """The images under `path`: subfolders are classes if there are any with images, else the folder is flat.

    Raises:
        InputError: no such folder, a file, no image in it, a class without any, images of which one cannot say
            whether they are meant, or a class that cannot be read.
    """
    shown = readable(path)
    if path.is_file():
        raise InputError(f"{shown} is a file, not a folder of images.", _LAYOUT, code="images-not-a-folder", path=path)
    if not path.is_dir():
        raise InputError(f"There is no folder {shown}.", _LAYOUT, code="no-image-folder", path=path)
    loose = _scanned(path, deep=False)
    folders, hidden = _subfolders(path)
    real = {folder: os.path.realpath(folder) for folder in folders}
    groups = {folder: _scanned(folder, True, {*real.values(), os.path.realpath(path)}) for folder in folders}
    beside = [*loose.left_out, *hidden]
    left_out = [*beside, *(one for listing in groups.values() for one in listing.left_out)]
    if not any(listing.images for listing in groups.values()):
        if not loose.images:
            there = f": {counted(left_out)}" if left_out else ""
            raise InputError(
                f"There is no image in {shown}{there}.",
                f"{_LAYOUT} Known endings: {common_endings()}, and others.",
                code="no-image",
                path=path,
            )
        files = tuple((file, None) for file in loose.images)
        return Folder(shown, (), files, tuple(left_out), loose.linked)
    _check_classes(path, loose, groups, real)
    left_out += [LeftOut(readable(file), Reason.LOOSE, "beside the class folders") for file in loose.images]
    return Folder(
        shown,
        tuple(readable(folder.name) for folder in groups),
        tuple((file, label) for label, listing in enumerate(groups.values()) for file in listing.images),
        tuple(left_out),
        any(listing.linked for listing in groups.values()),
    )


def _check_classes(path: Path, loose: Listing, groups: Mapping[Path, Listing], real: Mapping[Path, str]) -> None:
    for folder, listing in groups.items():
        if not listing.images:
            there = f": {counted(listing.left_out)}" if listing.left_out else ""
            raise InputError(
                f"The class folder {readable(folder)} holds no image{there}.",
                "Fill it, or remove it.",
                code="empty-class",
                path=folder,
            )
    names: dict[str, Path] = {}
    for folder in groups:
        for key in (real[folder], readable(folder.name)):
            if key in names and names[key] != folder:
                raise InputError(
                    f"{readable(folder)} and {readable(names[key])} are one class folder under two names.",
                    "Remove or rename one of them.",
                    code="class-twice",
                    path=folder,
                )
            names[key] = folder
    # A few strays beside the classes are left out and counted; as many as a class may be what was meant.
    smallest = min(len(listing.images) for listing in groups.values())
    if loose.images and (len(groups) == 1 or len(loose.images) >= smallest):
        example = next(iter(groups))
        raise InputError(
            f"{readable(path)} holds {count(len(loose.images), 'image')} beside {_folders(len(groups))}, such as "
            f"{readable(example.name)} with {count(len(groups[example].images), 'image')}: which are meant?",
            "Move the images into class folders, or the subfolders elsewhere.",
            code="loose-images",
            path=path,
            loose=len(loose.images),
        )


def _folders(number: int) -> str:
    return "one subfolder" if number == 1 else count(number, "subfolder")


def _scanned(path: Path, deep: bool, elsewhere: Iterable[str] = ()) -> Listing:
    try:
        return scan(path, deep, elsewhere)
    except OSError as error:
        raise InputError(
            f"The folder {readable(path)} cannot be read: {reason_of(error)}.",
            "Check its permissions.",
            code="unreadable",
            path=path,
        ) from error


def _subfolders(path: Path) -> tuple[list[Path], list[LeftOut]]:
    """Folders that may be classes, and hidden ones."""
    folders = sorted(child for child in path.iterdir() if child.is_dir())
    hidden = [child for child in folders if child.name.startswith(".")]
    return (
        [child for child in folders if child not in hidden],
        [LeftOut(readable(child), Reason.HIDDEN, "hidden folder") for child in hidden],
    )
