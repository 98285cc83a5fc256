"""What lies in a folder of images: the images, and everything else with the reason why it is not read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tofe_export.artifacts.names import readable
from tofe_export.data.image_file import endings
from tofe_export.data.image_log import LeftOut, Reason


@dataclass
class Found:
    """Images in order, what else there is, and whether any image is a link."""

    images: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    linked: bool = False


def scan(folder: Path, deep: bool, elsewhere: Iterable[str] = ()) -> Found:
    """The images in `folder`.

    Args:
        folder: where to look. Links are followed; a folder is read once, under the first name that leads there.
        deep: in its subfolders too. Else they are no business of this call, hidden ones neither.
        elsewhere: real paths of folders that are read by other calls.

    Raises:
        OSError: `folder` itself cannot be read. A subfolder that cannot is left out.
    """
    found, known = Found(), set(endings())
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
            found.left_out.append(LeftOut(readable(here), Reason.FOLDER, f"folder: {error.strerror}"))
            continue
        for entry in children:
            path = here / entry.name
            if _is_folder(entry):
                if deep and _enter(path, visited, found):
                    waiting.append(path)
            else:
                _add_file(path, entry, known, found)
    found.images.sort()
    found.left_out.sort(key=lambda one: one.name)
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads back to itself
        return False


def _enter(path: Path, visited: set[str], found: Found) -> bool:
    if path.name.startswith("."):
        found.left_out.append(LeftOut(readable(path), Reason.HIDDEN, "hidden folder"))
        return False
    real = os.path.realpath(path)
    if real in visited:
        found.left_out.append(LeftOut(readable(path), Reason.LINK, f"the same folder as {readable(real)}"))
        return False
    visited.add(real)
    return True


def _add_file(path: Path, entry: os.DirEntry[str], known: set[str], found: Found) -> None:
    ending = path.suffix.lower()
    if path.name.startswith("."):
        if ending in known:  # .DS_Store and the like are nobody's images
            found.left_out.append(LeftOut(readable(path), Reason.HIDDEN, "hidden"))
    elif ending not in known:
        found.left_out.append(LeftOut(readable(path), Reason.KIND, readable(ending) or "without an ending"))
    elif path.is_file():
        found.images.append(path)
        found.linked = found.linked or entry.is_symlink()
    elif entry.is_symlink() and not path.exists():
        found.left_out.append(LeftOut(readable(path), Reason.GONE, "a link to nothing"))
    else:
        found.left_out.append(LeftOut(readable(path), Reason.KIND, "special file"))
