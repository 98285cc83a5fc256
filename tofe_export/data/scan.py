"""What lies in a folder of images: the images, and everything else with the reason why it is not read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tofe_export.data.image_file import endings
from tofe_export.data.image_log import LeftOut, Reason
from tofe_export.files.names import readable


@dataclass
class Listing:
    """Images in order, what else there is, and whether any image is a link."""

    images: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    linked: bool = False


def scan(folder: Path, deep: bool, elsewhere: Iterable[str] = ()) -> Listing:
    """The images in `folder`.

    Args:
        folder: where to look. Links are followed; a folder is read once, under the first name that leads there.
        deep: in its subfolders too. Otherwise this call ignores them, hidden ones too.
        elsewhere: real paths of folders that are read by other calls.

    Raises:
        OSError: `folder` itself cannot be read. A subfolder that cannot is left out.
    """
    listing, known = Listing(), set(endings())
    visited = {*elsewhere, os.path.realpath(folder)}
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            with os.scandir(here) as entries:
                children = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            if here == folder:
                raise
            listing.left_out.append(LeftOut(readable(here), Reason.FOLDER, f"folder: {error.strerror}"))
            continue
        for entry in children:
            path = here / entry.name
            if _is_folder(entry):
                if deep and _enter(path, visited, listing):
                    waiting.append(path)
            else:
                _add_file(path, entry, known, listing)
    listing.images.sort()
    listing.left_out.sort(key=lambda one: one.name)
    return listing


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _enter(path: Path, visited: set[str], listing: Listing) -> bool:
    if path.name.startswith("."):
        listing.left_out.append(LeftOut(readable(path), Reason.HIDDEN, "hidden folder"))
        return False
    real = os.path.realpath(path)
    if real in visited:
        listing.left_out.append(LeftOut(readable(path), Reason.LINK, f"the same folder as {readable(real)}"))
        return False
    visited.add(real)
    return True


def _add_file(path: Path, entry: os.DirEntry[str], known: set[str], listing: Listing) -> None:
    ending = path.suffix.lower()
    if path.name.startswith("."):
        if ending in known:  # .DS_Store and the like are nobody's images
            listing.left_out.append(LeftOut(readable(path), Reason.HIDDEN, "hidden"))
    elif ending not in known:
        listing.left_out.append(LeftOut(readable(path), Reason.KIND, readable(ending) or "without an ending"))
    elif path.is_file():
        listing.images.append(path)
        listing.linked = listing.linked or entry.is_symlink()
    elif entry.is_symlink() and not path.exists():
        listing.left_out.append(LeftOut(readable(path), Reason.GONE, "a link to nothing"))
    else:
        listing.left_out.append(LeftOut(readable(path), Reason.KIND, "special file"))
