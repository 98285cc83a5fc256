"""The training logs: metrics.jsonl has a JSON object per epoch, steps.jsonl one every few seconds. Dense phase first.

Nobody repeats a training for its log, so a value that cannot be used counts as missing and does not refuse the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Whole
from tofe_export.errors import InputError
from tofe_export.files.reading import parse_json

Phase = Literal["dense", "tofe"]
DENSE: Phase = "dense"
TOFE: Phase = "tofe"


def _or_none(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    try:
        return check(value)
    except ValidationError:
        return None


_Share = Annotated[float, Field(strict=True, gt=-1e6, lt=1e6)]  # beyond that it is not a share, and has no axis
Share = Annotated[_Share | None, WrapValidator(_or_none)]
Shares = Annotated[tuple[_Share, ...] | None, WrapValidator(_or_none)]
_Count = Annotated[Annotated[int, Field(strict=True, ge=1, le=10**9)] | None, WrapValidator(_or_none)]
_Rate = Annotated[Annotated[float, Field(strict=True, gt=0, lt=1e9)] | None, WrapValidator(_or_none)]
_Amount = Annotated[Annotated[float, Field(strict=True, ge=0, lt=1e12)] | None, WrapValidator(_or_none)]
_Part = Annotated[Annotated[float, Field(strict=True, ge=0, le=1)] | None, WrapValidator(_or_none)]


class _Measured(Part):
    """A network on held-out images; None is what was not measured.

    Attributes:
        val_accuracy: of the threshold path in the ToFe phase, of the backbone before it.
        keep_mean, keep_std: per stage, share of an image's tokens that are kept: mean over the images, and spread.
        macs_ratio: cost of the network as a share of the dense backbone's.
    """

    val_accuracy: Share = None
    keep_mean: Shares = None
    keep_std: Shares = None
    macs_ratio: Share = None


class Epoch(_Measured):
    """One line of the log; None is what it does not say.

    Attributes:
        number: as the log numbers it.
    """

    phase: Phase
    number: Annotated[Whole | None, WrapValidator(_or_none)] = Field(None, alias="epoch")


@dataclass(frozen=True)
class History:
    """All epochs in the order they ran."""

    epochs: tuple[Epoch, ...]

    def phase(self, name: Phase) -> list[tuple[int, Epoch]]:
        """(place on the time axis from 1, epoch) of one phase."""
        return [(place, epoch) for place, epoch in enumerate(self.epochs, start=1) if epoch.phase == name]

    def final_accuracy(self, name: Phase) -> float | None:
        """Accuracy on held-out images at the end of a phase, or None when it was not measured."""
        measured = [epoch.val_accuracy for _, epoch in self.phase(name) if epoch.val_accuracy is not None]
        return measured[-1] if measured else None


class Ending(_Measured):
    """What a checkpoint says of the end of its training, on held-out images; None is what it does not say.

    Attributes:
        dense_accuracy: of the dense teacher.
        macs_budget: the cost that training aimed at.
    """

    dense_accuracy: Share = None
    macs_budget: Share = None


class Stretch(Part):
    """One line of steps.jsonl: the steps since the line before it. None is what it does not say.

    Attributes:
        epoch, step: of its last step, both from 1; steps are counted within the epoch.
        time: when it was written, in seconds since 1970.
        seconds: that its steps took, without evaluation.
        images_per_s: over its steps, of all processes.
        wait_share: of that time, in which the network waited for images.
        gpu_memory_gib: largest amount of the phase so far.
    """

    phase: Phase
    epoch: _Count = None
    step: _Count = None
    time: _Amount = None
    seconds: _Amount = None
    images_per_s: _Rate = None
    wait_share: _Part = None
    gpu_memory_gib: _Amount = None


@dataclass(frozen=True)
class Pace:
    """How fast a run went: its stretches in order, each step in one of them."""

    stretches: tuple[Stretch, ...]

    def phase(self, name: Phase) -> list[Stretch]:
        """Those of one phase."""
        return [stretch for stretch in self.stretches if stretch.phase == name]

    def seconds(self, name: Phase) -> list[float]:
        """How long each stretch of a phase lasted; one that does not say it, since the one before it was written."""
        lasted, before = list[float](), None
        for stretch in self.phase(name):
            since = stretch.time - before if stretch.time is not None and before is not None else 0.0
            lasted.append(max(0.0, since) if stretch.seconds is None else stretch.seconds)
            before = stretch.time
        return lasted


def read_history(path: Path) -> History:
    """The log in `path`. A run that was resumed counts each epoch once, as it ran last.

    Raises:
        InputError: a line in the middle is not a JSON object. A torn last line is what a killed run leaves: skipped.
    """
    epochs: dict[tuple[Phase, int], Epoch] = {}
    for number, content in _objects(path):
        try:
            epoch = Epoch.model_validate(content)
        except ValidationError:  # of neither phase: it must not pass for the dense backbone's
            continue
        key = epoch.phase, number if epoch.number is None else epoch.number
        epochs.pop(key, None)
        epochs[key] = epoch
    return History(tuple(epochs.values()))


def read_pace(path: Path) -> Pace:
    """The log of steps in `path`. A run that was resumed counts each step once, as it ran last.

    Raises:
        InputError: see `read_history`.
    """
    kept: list[tuple[tuple[bool, int, int], Stretch]] = []
    for _, content in _objects(path):
        try:
            stretch = Stretch.model_validate(content)
        except ValidationError:
            continue
        if stretch.epoch is None or stretch.step is None:  # nobody knows which steps these are
            continue
        place = stretch.phase == TOFE, stretch.epoch, stretch.step
        while kept and kept[-1][0] >= place:  # the run went back to its saved state
            kept.pop()
        kept.append((place, stretch))
    return Pace(tuple(stretch for _, stretch in kept))


def _objects(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """(number, content) of each line of a log that is not empty."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}).", "Remove it, or repair it.", code="unreadable", path=path
        ) from error
    for number, line in enumerate(lines, start=1):
        try:
            content = parse_json(line, "The line", "")
        except InputError:
            content = None
        if isinstance(content, dict):
            yield number, content
        elif number < len(lines):
            message = f"Line {number} of {path} is not a JSON object."
            raise InputError(message, "Remove that line, or the file.", code="history-line", path=path, line=number)
