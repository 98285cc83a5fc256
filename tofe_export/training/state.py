"""The state of a run on disk: enough to continue after a kill as if nothing had happened."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tofe_export.errors import InputError
from tofe_export.files.names import METRICS, STATE
from tofe_export.files.writing import write_bytes, write_text

_KIND = "tofe-export/training-state/"
FORMAT = f"{_KIND}4"
PHASES = ("dense", "tofe")
_AGAIN = "Start again in another folder, or remove this one."


@dataclass
class RunState:
    """Where a run stands after a step.

    Attributes:
        recipe, start, config: what the run was started with, as plain containers; `start` is its first weights.
        data: its classes and how many images it trains on.
        phase: `dense` or `tofe`.
        epochs_done: whole epochs of that phase.
        epoch: of the epoch that was begun, the steps that were made and what they summed up.
        model: weights of the whole network.
        teacher: weights of the dense teacher; empty before the second phase.
        optimizer: what the phase keeps besides the network's weights.
        dense_accuracy: the teacher's on the held-out images; None before the second phase.
        metrics: one entry an epoch so far.
    """

    recipe: dict[str, Any]
    start: dict[str, Any]
    config: dict[str, Any]
    data: dict[str, Any]
    phase: str
    epochs_done: int
    epoch: dict[str, Any]
    model: Mapping[str, Tensor]
    teacher: Mapping[str, Tensor]
    optimizer: dict[str, Any]
    dense_accuracy: float | None
    metrics: list[dict[str, Any]]

    @property
    def place(self) -> tuple[str, int, int]:
        """Its phase, whole epochs of that, and steps of the next one."""
        return self.phase, self.epochs_done, int(self.epoch["steps"])


def save_state(folder: Path, state: RunState) -> None:
    """Writes `folder`/state.pt atomically, then the metrics log that belongs to it."""
    buffer = io.BytesIO()  # torch's own file writer does not say that a disk is full
    torch.save({"format": FORMAT, **vars(state)}, buffer)
    write_bytes(folder / STATE, buffer.getvalue())
    write_metrics(folder, state.metrics)


def write_metrics(folder: Path, metrics: list[dict[str, Any]]) -> None:
    """Writes `folder`/metrics.jsonl: one JSON object an epoch, nothing of epochs that are not in `metrics`."""
    write_text(folder / METRICS, "".join(json.dumps(entry) + "\n" for entry in metrics))


def load_state(folder: Path) -> RunState | None:
    """The saved state, or None where there is none.

    Raises:
        InputError: damaged, or not a training state.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in many ways
        raise damaged(folder) from error
    written = document.pop("format", None) if isinstance(document, dict) else None
    if not isinstance(written, str) or not written.startswith(_KIND):
        raise _unusable(f"{path} is not a training state of this program.", path)
    if written != FORMAT or {one.name for one in fields(RunState)} != set(document):
        raise _unusable(f"{path} was written by another version of this program.", path)
    state = RunState(**document)
    try:  # all of them are plain containers
        json.dumps([state.recipe, state.start, state.config, state.data, state.epoch, state.metrics])
    except (TypeError, ValueError, RecursionError) as error:
        raise damaged(folder) from error
    if not _is_whole(state):
        raise damaged(folder)
    return state


def damaged(folder: Path) -> InputError:
    """The error for a state that does not hold what a run needs."""
    return _unusable(f"{folder / STATE} is damaged, so the run cannot be resumed.", folder / STATE)


def _unusable(message: str, path: Path) -> InputError:
    return InputError(message, _AGAIN, code="training-state", path=path)


def _is_whole(state: RunState) -> bool:
    """Whether every part is of its kind; what the optimizer and the weights hold shows when they are loaded."""
    mappings = (state.recipe, state.start, state.config, state.data, state.model, state.teacher, state.optimizer)
    entries = state.metrics if isinstance(state.metrics, list) else []
    epoch = state.epoch if isinstance(state.epoch, dict) else {}
    sums = epoch.get("sums")
    return (
        all(isinstance(part, Mapping) for part in mappings)
        and type(state.epochs_done) is int
        and 0 <= state.epochs_done <= len(entries)
        and all(isinstance(entry, dict) and entry.get("phase") in PHASES for entry in entries)
        and state.phase in PHASES
        and (state.dense_accuracy is None or isinstance(state.dense_accuracy, float))
        and type(epoch.get("steps")) is int
        and epoch["steps"] >= 0
        and isinstance(sums, dict)
        and all(isinstance(value, float) for value in sums.values())
    )
