"""metrics.jsonl, the training log: one JSON object per epoch, of the dense phase and then of the ToFe phase.

Nobody repeats a training for its log, so a value that cannot be used counts as missing and does not refuse the file.
"""

from __future__ import annotations

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


class Epoch(Part):
    """One line of the log; None is what it does not say.

    Attributes:
        number: as the log numbers it.
        val_accuracy: on held-out images.
        keep_mean, keep_std: per stage, share of an image's tokens that are kept: mean over held-out images, and spread.
        macs_ratio: cost of the network as a share of the dense backbone's.
    """

    phase: Phase
    number: Annotated[Whole | None, WrapValidator(_or_none)] = Field(None, alias="epoch")
    val_accuracy: Share = None
    keep_mean: Shares = None
    keep_std: Shares = None
    macs_ratio: Share = None


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


def read_history(path: Path) -> History:
    """The log in `path`. A run that was resumed counts each epoch once, as it ran last.

    Raises:
        InputError: a line in the middle is not a JSON object. A torn last line is what a killed run leaves: skipped.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read ({error}).", "Remove it, or repair it.", code="unreadable", path=path
        ) from error
    epochs: dict[tuple[Phase, int], Epoch] = {}
    for number, line in enumerate(lines, start=1):
        try:
            content = parse_json(line, "The line", "")
        except InputError:
            content = None
        if not isinstance(content, dict):
            if number == len(lines):
                break
            message = f"Line {number} of {path} is not a JSON object."
            raise InputError(message, "Remove that line, or the file.", code="history-line", path=path, line=number)
        try:
            epoch = Epoch.model_validate(content)
        except ValidationError:  # of neither phase: it must not pass for the dense backbone's
            continue
        key = epoch.phase, number if epoch.number is None else epoch.number
        epochs.pop(key, None)
        epochs[key] = epoch
    return History(tuple(epochs.values()))
