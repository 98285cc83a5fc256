"""Images as they are named one by one: files, folders with everything below them, and patterns."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tofe_export.data.image_file import UnreadableImage, common_endings, read_image
from tofe_export.data.image_log import ImageLog, LeftOut, counted
from tofe_export.data.images import Sample
from tofe_export.data.scan import scan
from tofe_export.errors import InputError
from tofe_export.files.names import expanded, readable
from tofe_export.files.places import is_there, reason_of

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


@dataclass(frozen=True)
class NamedImages:
    """An `ImageSource` without labels, in the order of the names; a folder's images come sorted.

    Attributes:
        files: the images.
        named: those of them that were named themselves, as the log names them: each must be readable.
        left_out: what else lies in the folders.
    """

    files: tuple[Path, ...]
    named: frozenset[str]
    left_out: tuple[LeftOut, ...] = ()

    name = "the images"
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
    """The images that `names` name: files, folders, and patterns with `*`, `?`, `[...]` or `**`.

    Raises:
        InputError: no name, an address, a folder without images, or a pattern that nothing fits.
    """
    if not names:
        raise InputError("No image was given.", "Name at least one in `images`.", code="no-image-named")
    files: list[Path] = []
    named: set[str] = set()
    left_out: list[LeftOut] = []
    for name in names:
        if _ADDRESS.match(name):
            raise InputError(
                f"{name} is an address, and images are read from files.",
                "Download it, and name the file.",
                code="image-address",
                name=name,
            )
        path = expanded(name)
        if path.is_dir():
            listing = _images_below(path)
            files += listing[0]
            left_out += listing[1]
        elif glob.has_magic(name) and not is_there(path):
            files += _fitting(name)
        else:  # a file that is missing is found out when it is read, like one that is damaged
            files.append(path)
            named.add(readable(path))
    return NamedImages(tuple(files), frozenset(named), tuple(left_out))


def _images_below(folder: Path) -> tuple[list[Path], list[LeftOut]]:
    try:
        listing = scan(folder, deep=True)
    except OSError as error:
        message = f"The folder {readable(folder)} cannot be read: {reason_of(error)}."
        raise InputError(message, "Check its permissions.", code="unreadable", path=folder) from error
    if not listing.images:
        there = f": {counted(listing.left_out)}" if listing.left_out else ""
        raise InputError(
            f"There is no image in {readable(folder)}{there}.",
            f"Known endings: {common_endings()}, and others.",
            code="no-image",
            path=folder,
        )
    return listing.images, listing.left_out


def _fitting(pattern: str) -> list[Path]:
    found = sorted(_files(pattern))
    if not found:
        raise InputError(
            f"No file fits the pattern {readable(pattern)}.",
            "Check the folder it begins with; ** stands for folders at any depth.",
            code="no-file-fits",
            name=pattern,
        )
    return found


def _files(pattern: str) -> Iterator[Path]:
    for found in glob.iglob(str(expanded(pattern)), recursive=True):  # noqa: PTH207 - Path.glob takes no absolute one
        path = Path(found)
        if path.is_file():
            yield path
