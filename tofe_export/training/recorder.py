"""How fast a run is and how it goes: a line every few seconds in steps.jsonl, and the same numbers to trackers."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.files.names import STEPS
from tofe_export.progress import Note
from tofe_export.training.recipe import values_by_key
from tofe_export.training.trackers import Trackers, open_trackers

if TYPE_CHECKING:
    from tofe_export.training.loop import EpochMeans, EpochSums, StepTimes, Watch
    from tofe_export.training.phase import Phase
    from tofe_export.training.run import RunOptions

_EVERY_S = 10.0
_GIB = 1 << 30


class Recorder:
    """Of one process; only the first of a run writes."""

    def __init__(self, path: Path | None, trackers: Trackers, batch_size: int) -> None:
        self.path, self.trackers, self.batch_size = path, trackers, batch_size
        self._clear()

    def _clear(self) -> None:
        self._steps, self._seconds, self._waited = 0, 0.0, 0.0

    def begin(self, phase: Phase, before: int) -> None:
        """A phase begins or goes on; `before` steps of the run are those of the phase before it."""
        self._before = before
        self._clear()
        self.images_per_s: float | None = None
        self.seconds_left: float | None = None
        if phase.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(phase.device)  # else a phase would have the peak of the one before it

    def watched(self, watch: Watch) -> Watch:
        """A function that gives `watch` the pace too, as it was when it was last measured."""

        def with_pace(means: EpochMeans) -> None:
            watch(replace(means, images_per_s=self.images_per_s, seconds_left=self.seconds_left))

        return with_pace

    def step(self, phase: Phase, epoch: int, sums: EpochSums, times: StepTimes) -> None:
        """Takes note of a step; see `loop.AfterStep`."""
        self._steps += 1
        self._seconds += times.step
        self._waited += times.wait
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
            "seconds": self._seconds,
            "phase_seconds_left": self.seconds_left,
        }
        if phase.device.type == "cuda":
            numbers["gpu_memory_gib"] = torch.cuda.max_memory_allocated(phase.device) / _GIB
        self._clear()
        if self.path is not None:
            line = {"phase": phase.name, "epoch": epoch + 1, "step": sums.steps, "time": time.time(), **numbers}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        self.trackers.log({f"{phase.name}/{name}": value for name, value in numbers.items()}, self._before + done)


@contextlib.contextmanager
def recording(
    folder: Path | None, options: RunOptions, recipe: TrainingRecipe, resumed: bool, note: Note
) -> Iterator[Recorder]:
    """The recorder of a run in `folder`, which gets a note of what its trackers do wrong; None only measures.

    Raises:
        InputError, MissingError: see `open_trackers`.
    """
    if folder is None:
        yield Recorder(None, Trackers({}, note), recipe.run.batch_size)
        return
    settings = values_by_key(recipe.to_dict())
    _prepare(folder / STEPS, resumed)
    trackers = open_trackers(options.trackers, folder, {"data": options.data, **settings}, resumed, note)
    finished = False
    try:
        yield Recorder(folder / STEPS, trackers, recipe.run.batch_size)
        finished = True
    finally:
        trackers.close(finished)


def _prepare(path: Path, resumed: bool) -> None:
    """Empties the log of another run; removes a last line that a killed one left half written."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        file.truncate(file.read().rfind(b"\n") + 1 if resumed else 0)
