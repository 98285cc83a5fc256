"""From the name of a set of images (`data`) to a source of them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tofe_export.data.digits import Digits
from tofe_export.data.images import ImageSource
from tofe_export.data.layouts import open_layout, part_folders
from tofe_export.data.photos import Photos
from tofe_export.errors import InputError, TofeError
from tofe_export.files.names import expanded, readable
from tofe_export.files.places import is_there, reason_of

DIGITS = "digits"
BUILT_IN = (DIGITS, "photos")
Part = Literal["train", "val", "any"]


def open_source(spec: str, part: Part, seed: int = 0) -> ImageSource:
    """The images that `spec` names.

    Args:
        spec: `digits`, `photos`, or a folder: of images, flat or in one subfolder per class; of tar shards; either of
            these below `train/` and `val/`; or a saved dataset.
        part: "train" and "val" have no image in common: of a folder without the two parts, every tenth image of each
            class is "val". "any" is for measuring on whatever there is: "val" where there are parts, else every image.
        seed: of what is drawn at random (`digits`, `photos`).

    Raises:
        InputError: no such folder, a file, or no image in it.
        MissingError: the package that reads a saved dataset is not installed.
    """
    if spec == DIGITS:
        return Digits("train" if part == "train" else "val", seed)
    if spec == "photos":
        return Photos(seed if part != "train" else max(1, seed))  # what is compared has the seed 0
    try:
        return _open_root(expanded(spec), spec, part)
    except OSError as error:  # a folder that may not be entered, a name that is too long, ...
        message = f"The folder {readable(spec)} cannot be read: {reason_of(error)}."
        raise InputError(message, "Check its name and its permissions.", code="unreadable", path=spec) from error


def _open_root(root: Path, spec: str, part: Part) -> ImageSource:
    if not is_there(root):
        raise InputError(
            f"There are no images called {readable(spec)!r}.",
            f"Give a folder, or one of: {', '.join(BUILT_IN)}.",
            code="no-images-called",
            name=spec,
        )
    folders = part_folders(root)
    if len(folders) > 1:
        return open_layout(folders[0 if part == "train" else 1], root)
    whole = open_layout(folders[0], root)
    return whole if part == "any" else whole.part(held_out=part == "val")


def images_like_training(trained_on: str, spec: str | None) -> ImageSource:
    """Images to compare a model on: what the user named, else what it was trained on, else bundled photos.

    Args:
        trained_on: in the words of `data`; "" when unknown.
        spec: as in `open_source`, which may refuse it; None where the user named nothing.
    """
    if spec is not None:
        return open_source(spec, "any")
    return open_source(DIGITS if trained_on == DIGITS else "photos", "val")


def require_unambiguous(spec: str | None) -> None:
    """Raises InputError for a name that the user typed and that is a bundled set's and that of a folder of images."""
    if is_ambiguous(spec):
        raise InputError(
            f"{spec!r} is a bundled set of images, and a folder of images here.",
            f"Write ./{spec} for the folder; for the bundled set, start from elsewhere or rename the folder.",
            code="ambiguous-data",
            name=spec,
        )


def is_ambiguous(spec: str | None) -> bool:
    """Whether a bundled set and a folder of images in the working directory both have this name."""
    if spec not in BUILT_IN or not Path(spec).is_dir():
        return False
    try:
        open_source(f"./{spec}", "any")
    except TofeError as error:
        return error.code != "no-image"  # the folder of a run, say
    return True


def class_note(source: ImageSource, classes: tuple[str, ...]) -> str:
    """Why accuracy cannot be measured on `source` with a network of these classes, in order; "" where it can be."""
    if not source.classes:
        return f"Accuracy was not measured: the images of {source.name} have no labels."
    if not classes:
        return "Accuracy was not measured: the model does not name its classes."
    if source.classes == classes:
        return ""
    unknown = [name for name in source.classes if name not in classes] or [
        name for name in classes if name not in source.classes
    ]
    difference = f"such as {unknown[0]}" if unknown else "in another order"
    return (
        f"Accuracy was not measured: {source.name} has {len(source.classes)} classes that are not the model's "
        f"{len(classes)} classes, {difference}."
    )
