"""The network of a run on images as they are in use: held-out ones for accuracy, training ones for thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tofe_export.data.image_log import ImageLog
from tofe_export.data.images import ImageSource, batches
from tofe_export.data.preprocessing import Preprocessing
from tofe_export.documents.training_recipe import RunTable
from tofe_export.model.tofe import ToFe
from tofe_export.training.loop import Evaluation, all_scores, evaluate
from tofe_export.training.processes import Processes

_THRESHOLD_IMAGES = 1024


@dataclass(frozen=True)
class Measuring:
    """What a run measures on, and how: each process takes its part of the images."""

    settings: RunTable
    train_source: ImageSource
    val_source: ImageSource
    preprocessing: Preprocessing
    workers: int
    device: torch.device
    processes: Processes
    log: ImageLog

    def evaluation(self, model: ToFe, dense: bool) -> Evaluation:
        """Of the held-out images; see `evaluate`."""
        loader = batches(
            self.val_source,
            self.preprocessing,
            self._batch,
            self.settings.limit_val,
            log=self.log,
            workers=self.workers,
            part=(self.processes.rank, self.processes.size),
        )
        return evaluate(model, dense, loader, self.device, self.processes, self.settings.precision)

    def scores(self, model: ToFe) -> list[Tensor]:
        """Of training images; see `all_scores`. Held-out ones choose nothing."""
        loader = batches(
            self.train_source.at_epoch(self.settings.seed),
            self.preprocessing,
            self._batch,
            min(_THRESHOLD_IMAGES, self.settings.limit_val or _THRESHOLD_IMAGES),
            seed=self.settings.seed,
            log=self.log,
            workers=self.workers,
            part=(self.processes.rank, self.processes.size),
        )
        return all_scores(model, loader, self.device, self.processes)

    @property
    def _batch(self) -> int:
        """Images at a time without gradients: as many as with them."""
        return max(1, self.settings.batch_size // self.settings.accumulate // self.processes.size)
