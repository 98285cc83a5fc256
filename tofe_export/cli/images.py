"""The last lines of every verb that reads images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tofe_export.cli import console

if TYPE_CHECKING:
    from tofe_export.documents.images import ImagesRead


def show_images(images: ImagesRead) -> None:
    """Shows on standard error how many images were read and left out, and why; nothing where none were to be read."""
    from tofe_export.data.image_log import image_lines

    if not (images.read or images.left_out or images.notes):
        return
    lines = image_lines(images)
    if images.left_out or images.notes:
        console.warn(lines)
    else:
        console.err.print(*lines, soft_wrap=True)
