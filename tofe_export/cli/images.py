"""What every verb that reads images ends with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tofe_export.cli import console

if TYPE_CHECKING:
    from tofe_export.data.image_log import ImageLog


def show_images(log: ImageLog) -> None:
    """How many images were read, if any were to be; what was left out and why, on standard error as progress is."""
    if not (log.read or log.left_out or log.notes):
        return
    if log.left_out or log.notes:
        console.warn(log.lines())
    else:
        console.err.print(*log.lines(), soft_wrap=True)
