"""From what the user typed after --data to a source of images."""

from __future__ import annotations

from typing import Literal

from tofe_export.artifacts.names import expanded
from tofe_export.data.digits import Digits
from tofe_export.data.folder import open_folder
from tofe_export.data.images import ImageSource
from tofe_export.data.photos import Photos
from tofe_export.errors import InputError

BUILT_IN = ("digits", "photos")
Part = Literal["train", "val", "any"]


def open_source(spec: str, part: Part, seed: int = 0) -> ImageSource:
    """The images that `spec` names.

    Args:
        spec: `digits`, `photos`, or a folder: flat, or one subfolder a class, or either below `train/` and `val/`.
        part: "train" and "val" have no image in common: of a folder without the two parts, every tenth image of each
            class is "val". "any" is for measuring on whatever there is: "val" where there are parts, else every image.
        seed: of what is drawn at random (`digits`, `photos`).

    Raises:
        InputError: no such folder, a file, or no image in it.
    """
    if spec == "digits":
        return Digits("train" if part == "train" else "val", seed)
    if spec == "photos":
        return Photos(seed)
    root = expanded(spec)
    if not root.exists():
        raise InputError(f"There are no images called {spec!r}.", f"Give a folder, or one of: {', '.join(BUILT_IN)}.")
    parts = [name for name in ("train", "val") if (root / name).is_dir()]
    if len(parts) == 1:
        raise InputError(
            f"{root} has a folder {parts[0]}/ but not the other of train/ and val/.",
            f"Add it, or name {root / parts[0]} itself.",
        )
    if parts:
        return open_folder(root / ("train" if part == "train" else "val"))
    folder = open_folder(root)
    return folder if part == "any" else folder.part(held_out=part == "val")
