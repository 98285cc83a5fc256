"""Images in a folder: an ImageFolder tree (one folder a class) or a flat folder without labels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tofe_export.data.images import CorruptImage, Sample
from tofe_export.errors import InputError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})
_HOLD_OUT = 10  # one image in so many
_LAYOUT = "Give a folder of images, or a folder with one subfolder of images per class."


@dataclass(frozen=True)
class Folder:
    """An `ImageSource` over files; a file is opened when it is asked for, and only then.

    Attributes:
        name: the folder as the user wrote it.
        classes: subfolder names, sorted; empty for a flat folder.
        files: every image with its class index (None in a flat folder), sorted.
    """

    name: str
    classes: tuple[str, ...]
    files: tuple[tuple[Path, int | None], ...]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Sample:
        path, label = self.files[index]
        return Sample(read_image(path), label, str(path))

    def part(self, held_out: bool) -> Folder:
        """Every tenth image of each class (held out), or the others; of fewer than ten images the last is held out.

        Raises:
            InputError: a class with a single image, which cannot be in both parts.
        """
        chosen: list[tuple[Path, int | None]] = []
        for label in sorted({label for _, label in self.files}, key=lambda label: -1 if label is None else label):
            mine = [file for file in self.files if file[1] == label]
            if len(mine) < 2:
                raise InputError(
                    f"{mine[0][0].parent} holds a single image, too few to train on some and hold out others.",
                    "Add images, or make the two parts yourself: train/ and val/.",
                )
            step = min(_HOLD_OUT, len(mine))
            chosen += [file for place, file in enumerate(mine, start=1) if (place % step == 0) == held_out]
        return Folder(self.name, self.classes, tuple(chosen))

    def at_epoch(self, epoch: int) -> Folder:
        """Itself: files do not change."""
        return self


def read_image(path: Path) -> Image.Image:
    """The file decoded to RGB.

    Raises:
        CorruptImage: it cannot be decoded, whatever the reason.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except Exception as error:  # decoders raise whatever they like: OSError, SyntaxError, struct.error, ...
        raise CorruptImage(str(path), type(error).__name__) from error


def open_folder(path: Path) -> Folder:
    """The images under `path`: subfolders are classes if there are any with images, else the folder is flat.

    Raises:
        InputError: no such folder, a file, or no image in it.
    """
    if path.is_file():
        raise InputError(f"{path} is a file, not a folder of images.", _LAYOUT)
    if not path.is_dir():
        raise InputError(f"There is no folder {path}.", _LAYOUT)
    try:
        groups = {folder.name: _images(folder, deep=True) for folder in _subfolders(path)}
        loose = _images(path, deep=False)
    except OSError as error:
        raise InputError(f"The folder {path} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if not any(groups.values()):
        if not loose:
            raise InputError(f"There is no image in {path}.", f"{_LAYOUT} Known endings: {' '.join(sorted(SUFFIXES))}.")
        return Folder(str(path), (), tuple((file, None) for file in loose))
    empty = [name for name, files in groups.items() if not files]
    if empty:
        raise InputError(f"The class folder {path / empty[0]} holds no image.", "Fill it, or remove it.")
    classes = tuple(groups)
    files = tuple((file, label) for label, name in enumerate(classes) for file in groups[name])
    return Folder(str(path), classes, files)


def _subfolders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(path: Path, deep: bool) -> list[Path]:
    found = path.rglob("*") if deep else path.iterdir()
    return sorted(
        file for file in found if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
    )
