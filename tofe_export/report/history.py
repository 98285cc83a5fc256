"""metrics.jsonl, the training log: one object an epoch, of the dense phase and then of the ToFe phase."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tofe_export.artifacts.files import parse_json
from tofe_export.errors import InputError

DENSE, TOFE = "dense", "tofe"
_LARGEST = 1e6  # these are shares; what is beyond is not drawn


@dataclass(frozen=True)
class Epoch:
    """One line of the log; what it does not say is None or empty.

    Attributes:
        phase: "dense" or "tofe".
        number: as the log numbers it.
        train_accuracy, val_accuracy: shares 0..1.
        keep_mean, keep_std: per stage, share of held-out images' tokens kept: mean over images, and its spread.
        macs_ratio: cost of the network as a share of the dense backbone's.
        budget: what macs_ratio was asked to be.
    """

    phase: str
    number: int
    train_accuracy: float | None
    val_accuracy: float | None
    keep_mean: tuple[float, ...]
    keep_std: tuple[float, ...]
    macs_ratio: float | None
    budget: float | None


@dataclass(frozen=True)
class History:
    """All epochs in the order they ran."""

    epochs: tuple[Epoch, ...]

    def phase(self, name: str) -> list[tuple[int, Epoch]]:
        """(place on the time axis from 1, epoch) of one phase."""
        return [(place, epoch) for place, epoch in enumerate(self.epochs, start=1) if epoch.phase == name]

    def final_accuracy(self, name: str) -> float | None:
        """Accuracy on held-out images at the end of a phase, or None when it was not measured."""
        found = [epoch.val_accuracy for _, epoch in self.phase(name) if epoch.val_accuracy is not None]
        return found[-1] if found else None

    @property
    def budget(self) -> float | None:
        """What the last epoch that names one was asked to cost."""
        return next((epoch.budget for epoch in reversed(self.epochs) if epoch.budget is not None), None)


def read_history(path: Path) -> History:
    """The log in `path`. A run that was resumed counts each epoch once, as it ran last.

    Raises:
        InputError: a line in the middle is not a JSON object. A torn last line is what a killed run leaves: skipped.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}).", "Remove it, or repair it.") from error
    epochs: dict[tuple[str, int], Epoch] = {}
    for number, line in enumerate(lines, start=1):
        document = _parse(line)
        if document is None and number == len(lines):
            break
        if document is None:
            raise InputError(f"Line {number} of {path} is not a JSON object.", "Remove that line, or the file.")
        epoch = _epoch(document, number)
        if epoch is None:
            continue
        epochs.pop((epoch.phase, epoch.number), None)
        epochs[epoch.phase, epoch.number] = epoch
    return History(tuple(epochs.values()))


def _parse(line: str) -> Mapping[str, Any] | None:
    try:
        document = parse_json(line, "The line", "")
    except InputError:
        return None
    return document if isinstance(document, dict) else None


def _epoch(document: Mapping[str, Any], line: int) -> Epoch | None:
    """None where a line belongs to neither phase: it must not pass for the dense backbone's."""
    number, phase = document.get("epoch"), document.get("phase")
    if phase not in (DENSE, TOFE):
        return None
    return Epoch(
        phase=phase,
        number=number if isinstance(number, int) else line,
        train_accuracy=_number(document.get("accuracy")),
        val_accuracy=_number(document.get("val_accuracy")),
        keep_mean=_numbers(document.get("keep_mean")),
        keep_std=_numbers(document.get("keep_std")),
        macs_ratio=_number(document.get("macs_ratio")),
        budget=_number(document.get("macs_budget")),  # "budget" is a part of the loss
    )


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < _LARGEST:
        return None
    return float(value)


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return ()
    found = [_number(item) for item in value]
    return tuple(item for item in found if item is not None) if None not in found else ()
