"""Images as they are named one by one: files, folders with everything below them, and patterns."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.folder import scanned
from tofe_export.data.image_file import UnreadableImage, common_endings, read_image
from tofe_export.data.image_log import ImageLog, LeftOut, Reason, counted
from tofe_export.data.images import Sample
from tofe_export.errors import InputError
from tofe_export.files.names import expanded, readable
from tofe_export.files.places import is_there

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class NamedImages:
    """An `ImageSource` without labels, in the order of the names; a folder's images come sorted.

    Attributes:
        name: the first name, for messages.
        files: the images.
        named: those of them that were named themselves, as the log names them: each must be readable.
        left_out: what else lies in the folders.
    """

    name: str
    files: tuple[Path, ...]
    named: frozenset[str]
    left_out: tuple[LeftOut, ...] = ()

    classes = ()

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.files[index]), None, readable(self.files[index]))

    def at_epoch(self, epoch: int) -> NamedImages:
        """Itself: files do not change."""
        return self

    def log(self) -> ImageLog:
        """One that leaves out what cannot be read, but for images that were named themselves."""
        return _StrictLog(named=self.named)


@dataclass
class _StrictLog(ImageLog):
    named: frozenset[str] = frozenset()

    def leave_out(self, left_out: LeftOut) -> None:
        """Raises UnreadableImage for an image that was named."""
        if left_out.name in self.named:
            raise UnreadableImage(left_out)
        super().leave_out(left_out)


def open_named(names: Sequence[str]) -> NamedImages:
    """The images that `names` name: files, folders with everything below them, and patterns (`*`, `?`, `[...]`, `**`).

    Raises:
        InputError: no name, an empty one, an address, a missing file, a folder without images or that cannot be read,
            or a pattern that nothing fits.
    """
    if not names:
        raise InputError("No image was given.", "Name at least one file or folder.", code="no-image-named")
    files: list[Path] = []
    named: set[str] = set()
    left_out: list[LeftOut] = []
    for name in names:
        _require_name(name)
        path = expanded(name)
        if not is_there(path):
            files += _fitting(name, path, left_out)
        elif path.is_dir():
            files += _images_below(path, left_out)
        else:
            files.append(path)
            named.add(readable(path))
    taken = {readable(path) for path in files}  # a hidden file, say, that was named beside its folder
    others = tuple(one for one in left_out if one.name not in taken)
    shown = readable(names[0]) if len(names) == 1 else f"{readable(names[0])} and others"
    return NamedImages(shown, tuple(files), frozenset(named), others)


def _require_name(name: str) -> None:
    if not name:
        raise InputError("The name of an image is empty.", "Write . for this folder.", code="empty-name")
    if _ADDRESS.match(name):
        raise InputError(
            f"{name} is an address, and images are read from files.",
            "Name a file; download it first if it lies elsewhere.",
            code="image-address",
            name=name,
        )


def _images_below(folder: Path, left_out: list[LeftOut]) -> list[Path]:
    """Sorted; what else lies there is added to `left_out`."""
    listing = scanned(folder, deep=True)
    if not listing.images:
        there = f": {counted(listing.left_out)}" if listing.left_out else ""
        raise InputError(
            f"There is no image in {readable(folder)}{there}.",
            f"Known endings: {common_endings()}, and others.",
            code="no-image",
            path=folder,
        )
    left_out += listing.left_out
    return listing.images


def _fitting(name: str, path: Path, left_out: list[LeftOut]) -> list[Path]:
    """What a pattern fits, sorted, each file once. A folder that fits is one that was named, unless `**` entered it."""
    if not glob.has_magic(name):
        raise UnreadableImage(LeftOut(readable(path), Reason.GONE, "not there"))
    by_place: dict[str, Path] = {}
    fitting = map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 - Path.glob takes no absolute pattern
    for one in sorted(fitting, key=lambda one: (len(one.parts), one)):  # links may lead to a file again, deeper down
        if not one.is_dir():
            by_place.setdefault(os.path.realpath(one), one)
        elif "**" not in name:
            by_place |= {os.path.realpath(image): image for image in _images_below(one, left_out)}
    if not by_place:
        raise InputError(
            f"No file fits the pattern {readable(name)}.",
            "Check the folder it begins with; ** stands for folders at any depth.",
            code="no-file-fits",
            name=name,
        )
    return sorted(by_place.values())
