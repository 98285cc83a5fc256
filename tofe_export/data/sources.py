"""From what the user typed after --data to a source of images."""

from __future__ import annotations

from pathlib import Path

from tofe_export.data.digits import Digits, Split
from tofe_export.data.folder import open_folder
from tofe_export.data.images import ImageSource
from tofe_export.data.photos import Photos
from tofe_export.errors import InputError

BUILT_IN = ("digits", "photos")


def open_source(spec: str, split: Split, seed: int = 0) -> ImageSource:
    """The images that `spec` names.

    Args:
        spec: `digits`, `photos`, or a folder: flat, or one subfolder a class, or either below `train/` and `val/`.
        split: which part, where there are parts; a folder without parts serves as both.
        seed: of what is drawn at random (`digits`, `photos`).

    Raises:
        InputError: no such folder, a file, or no image in it.
    """
    if spec == "digits":
        return Digits(split, seed)
    if spec == "photos":
        return Photos(seed)
    root = Path(spec).expanduser()
    if not root.exists():
        raise InputError(f"There are no images called {spec!r}.", f"Give a folder, or one of: {', '.join(BUILT_IN)}.")
    if (root / "train").is_dir() and (root / "val").is_dir():
        return open_folder(root / split)
    return open_folder(root)
