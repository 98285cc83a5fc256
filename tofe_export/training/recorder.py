"""How fast a run is and how it goes: a line every few seconds in steps.jsonl, and the same numbers to trackers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tofe_export.documents.history import DENSE
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.files.names import STEPS
from tofe_export.training.trackers import Tracker, open_trackers, require_trackers

if TYPE_CHECKING:
    from tofe_export.training.loop import EpochSums, StepTimes
    from tofe_export.training.phase import Phase
    from tofe_export.training.run import RunOptions

_EVERY_S = 10.0
_GIB = 1 << 30


class Recorder:
    """Of one process; only the first of a run writes."""

    def __init__(self, path: Path | None, trackers: Sequence[Tracker], batch_size: int) -> None:
        self.path, self.trackers, self.batch_size = path, trackers, batch_size
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        self.images_per_s = 0.0
        self.seconds_left = 0.0

    def step(self, phase: Phase, epoch: int, sums: EpochSums, times: StepTimes) -> None:
        """Takes note of a step; see `loop.AfterStep`."""
        self._steps, self._seconds, self._waited = (
            self._steps + 1,
            self._seconds + times.step,
            self._waited + times.wait,
        )
        if self._seconds < _EVERY_S and sums.steps < phase.steps:
            return
        done = epoch * phase.steps + sums.steps
        self.images_per_s = self._steps * self.batch_size / self._seconds
        self.seconds_left = (phase.epochs * phase.steps - done) * self._seconds / self._steps
        numbers = {
            **sums.means(),
            "lr": max(group["lr"] for group in phase.optimizer.param_groups),
            "images_per_s": self.images_per_s,
            "wait_share": self._waited / self._seconds,
            "phase_seconds_left": self.seconds_left,
        }
        if phase.device.type == "cuda":
            numbers["gpu_memory_gib"] = torch.cuda.max_memory_allocated(phase.device) / _GIB
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0
        if self.path is not None:
            line = {"phase": phase.name, "epoch": epoch + 1, "step": sums.steps, "time": time.time(), **numbers}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        before = 0 if phase.name == DENSE else phase.recipe.dense.epochs * phase.steps
        for tracker in self.trackers:
            tracker.log({f"{phase.name}/{name}": value for name, value in numbers.items()}, before + done)


@contextlib.contextmanager
def recording(folder: Path, options: RunOptions, recipe: TrainingRecipe, first: bool) -> Iterator[Recorder]:
    """The recorder of a run in `folder`; in processes other than the `first` it only measures.

    Raises:
        InputError, MissingError: see `require_trackers`.
    """
    require_trackers(options.trackers)
    plain = recipe.to_dict()
    settings = {f"{name}.{key}": value for name, table in plain.items() if isinstance(table, dict)
                for key, value in table.items()}  # fmt: skip
    trackers = open_trackers(options.trackers, folder, {"data": options.data, **settings}) if first else []
    try:
        yield Recorder(folder / STEPS if first else None, trackers, recipe.run.batch_size)
    finally:
        for tracker in trackers:
            tracker.close()
