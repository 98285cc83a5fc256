"""Images in a folder: an ImageFolder tree (one folder per class) or a flat folder without labels."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.image_file import common_endings, read_image
from tofe_export.data.image_log import LeftOut, Reason, counted
from tofe_export.data.images import Sample
from tofe_export.data.labels import part_of
from tofe_export.data.scan import Listing, scan
from tofe_export.errors import InputError, count
from tofe_export.files.names import readable
from tofe_export.files.places import reason_of

_File = tuple[Path, int | None]
_LAYOUT = "Give a folder of images, or a folder with one subfolder of images per class."


@dataclass(frozen=True)
class Folder:
    """An `ImageSource` over files; a file is opened when its sample is read, and only then.

    Attributes:
        name: the folder as the user wrote it.
        classes: subfolder names, sorted; empty for a flat folder.
        files: every image with its class index (None in a flat folder), sorted by class.
        left_out: what else lies there.
        linked: an image is a symbolic link, so one file may be there twice.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[_File, ...]
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
        labels = [label for _, label in self.files]
        files = [
            [self.files[place] for place in part_of(labels, held, lambda place: self.files[place][0].parent)]
            for held in (False, True)
        ]
        chosen, left_out = files[held_out], self.left_out
        if self.linked and not held_out:
            secret = {os.path.realpath(path) for path, _ in files[True]}
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
    loose = scanned(path, deep=False)
    inside = sorted(child for child in path.iterdir() if child.is_dir())
    folders = [child for child in inside if not child.name.startswith(".")]
    hidden = [
        LeftOut(readable(child), Reason.HIDDEN, "hidden folder") for child in inside if child.name.startswith(".")
    ]
    real = {folder: os.path.realpath(folder) for folder in folders}
    groups = {folder: scanned(folder, True, {*real.values(), os.path.realpath(path)}) for folder in folders}
    left_out = [*loose.left_out, *hidden, *(one for listing in groups.values() for one in listing.left_out)]
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
            message = f"The class folder {readable(folder)} holds no image{there}."
            raise InputError(message, "Fill it, or remove it.", code="empty-class", path=folder)
    names: dict[str, Path] = {}
    for folder in groups:
        for key in (real[folder], readable(folder.name)):
            if key in names and names[key] != folder:
                message = f"{readable(folder)} and {readable(names[key])} are one class folder under two names."
                raise InputError(message, "Remove or rename one of them.", code="class-twice", path=folder)
            names[key] = folder
    # A few strays beside the classes are left out and counted; as many as a class may be what was meant.
    smallest = min(len(listing.images) for listing in groups.values())
    if loose.images and (len(groups) == 1 or len(loose.images) >= smallest):
        example, listing = next(iter(groups.items()))
        folders = "one subfolder" if len(groups) == 1 else f"{len(groups)} subfolders"
        raise InputError(
            f"{readable(path)} holds {count(len(loose.images), 'image')} beside {folders}, such as "
            f"{readable(example.name)} with {count(len(listing.images), 'image')}: which are meant?",
            "Move the images into class folders, or the subfolders elsewhere.",
            code="loose-images",
            path=path,
            loose=len(loose.images),
        )


def scanned(path: Path, deep: bool, elsewhere: Iterable[str] = ()) -> Listing:
    """As `scan`, with InputError where `path` itself cannot be read."""
    try:
        return scan(path, deep, elsewhere)
    except OSError as error:
        message = f"The folder {readable(path)} cannot be read: {reason_of(error)}."
        raise InputError(message, "Check its permissions.", code="unreadable", path=path) from error
