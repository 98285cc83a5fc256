"""Labels of a set of images: the order that they give it, and which of its images are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from os import PathLike

from tofe_export.errors import InputError
from tofe_export.files.names import readable

_HOLD_OUT = 10  # one image in ten


def by_class(labels: Sequence[int | None]) -> list[int]:
    """Places of the labeled images, by class and then as they stand; every place where no image has a label.

    So the same images give the same batches, in whatever form they are stored.
    """
    labeled = [(label, place) for place, label in enumerate(labels) if label is not None]
    return [place for _, place in sorted(labeled)] or list(range(len(labels)))


def part_of(labels: Sequence[int | None], held_out: bool, holder: Callable[[int], str | PathLike[str]]) -> list[int]:
    """Places of every tenth image of each class (held out), or of the others; of fewer than ten the last is held out.

    Args:
        labels: of every image; None is a class too.
        held_out: which part.
        holder: what holds the image at a place, for the message.

    Raises:
        InputError: a class with a single image, which cannot be in both parts.
    """
    places: dict[int | None, list[int]] = {}
    for place, label in enumerate(labels):
        places.setdefault(label, []).append(place)
    chosen = []
    for of_label in places.values():
        if len(of_label) < 2:
            where = holder(of_label[0])
            raise InputError(
                f"{readable(where)} holds a single image, too few to train on some and hold out others.",
                "Add images, or make the two parts yourself: train/ and val/.",
                code="single-image",
                path=where,
            )
        step = min(_HOLD_OUT, len(of_label))
        chosen += [place for number, place in enumerate(of_label, start=1) if (number % step == 0) == held_out]
    return sorted(chosen)


def class_of(source: str, classes: Sequence[str], label: int | None) -> str:
    """A class as the subject of a sentence: "The class cat of data/pets"; the source itself where it has no labels."""
    return source if label is None else f"The class {classes[label]} of {source}"
