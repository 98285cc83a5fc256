"""Which images the page looks at, and how their batches are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tofe_export.checkpoints.checkpoint import Checkpoint
from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import Batch, ImageSource, batches
from tofe_export.data.sources import open_source
from tofe_export.errors import InputError
from tofe_export.progress import Progress, tracked

_BATCH = 8
_AVERAGED = 64  # enough for an average, seconds on a CPU


@dataclass(frozen=True)
class ShownImages:
    """Held-out images of a checkpoint.

    Attributes:
        source: where they come from.
        notes: sentences on why it is those.
        count: how many are on the page; averages are over more.
    """

    source: ImageSource
    notes: tuple[str, ...]
    count: int
    checkpoint: Checkpoint
    log: ImageLog
    progress: Progress

    def shown(self, task: str) -> Iterator[Batch]:
        """The images that are on the page; `task` names the job for those who wait."""
        return self._batches(self.count, task)

    def averaged(self, task: str) -> Iterator[Batch]:
        """The images that averages are over."""
        return self._batches(max(self.count, _AVERAGED), task)

    def _batches(self, count: int, task: str) -> Iterator[Batch]:
        loop = batches(self.source, self.checkpoint.preprocessing, _BATCH, count, log=self.log)
        return tracked(loop, task, -(-min(count, len(self.source)) // _BATCH), self.progress)


def open_images(checkpoint: Checkpoint, count: int, data: str | None, log: ImageLog, progress: Progress) -> ShownImages:
    """The images of `data`; None takes those it was trained on, and bundled photographs where they are gone.

    Raises:
        InputError: `data` names no images.
    """
    source, notes = _source(checkpoint, data)
    return ShownImages(source, notes, count, checkpoint, log, progress)


def _source(checkpoint: Checkpoint, data: str | None) -> tuple[ImageSource, tuple[str, ...]]:
    if data is not None:
        return open_source(data, "any"), ()
    if checkpoint.data:
        try:
            return open_source(checkpoint.data, "val"), ()
        except InputError:
            note = f"The images it was trained on ({checkpoint.data}) are not here, so these are bundled photographs."
    else:
        note = "What it was trained on is unknown, so these are bundled photographs."
    return open_source("photos", "val"), (note,)
