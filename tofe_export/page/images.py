"""Which images the page looks at, and how their batches are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import Batch, ImageSource, batches
from tofe_export.data.sources import open_source
from tofe_export.errors import InputError, MissingError
from tofe_export.progress import Progress, tracked

_BATCH = 8
_AVERAGED = 64  # enough for an average, seconds on a CPU


@dataclass(frozen=True)
class ShownImages:
    """Held-out images of a checkpoint.

    Attributes:
        source: where they come from.
        note: a sentence on why it is those, or "".
        count: how many are on the page; averages are over more.
    """

    source: ImageSource
    note: str
    count: int
    checkpoint: Checkpoint
    log: ImageLog
    progress: Progress

    def shown(self, task: str) -> Iterator[Batch]:
        """The images that are on the page; `task` names the job for those who wait."""
        loop = batches(self.source, self.checkpoint.preprocessing, _BATCH, self.count, log=self.log)
        return tracked(loop, task, -(-min(self.count, len(self.source)) // _BATCH), self.progress)

    def averaged(self, task: str) -> Iterator[Batch]:
        """The images that averages are over."""
        return replace(self, count=max(self.count, _AVERAGED)).shown(task)


def open_images(checkpoint: Checkpoint, count: int, data: str | None, log: ImageLog, progress: Progress) -> ShownImages:
    """The images of `data`; None takes those it was trained on, and bundled photographs where they are gone.

    Raises:
        InputError: `data` names no images.
    """
    note = ""
    if data is not None:
        source = open_source(data, "any")
    elif checkpoint.data:
        try:
            source = open_source(checkpoint.data, "val")
        except (InputError, MissingError):
            source = open_source("photos", "val")
            note = f"The images it was trained on ({checkpoint.data}) are not here, so these are bundled photographs."
    else:
        source = open_source("photos", "val")
        note = "What it was trained on is unknown, so these are bundled photographs."
    return ShownImages(source, note, count, checkpoint, log, progress)
