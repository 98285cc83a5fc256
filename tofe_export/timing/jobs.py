"""What the parent and its workers say to each other: one job on standard input, and a message per line in return."""

from __future__ import annotations

import builtins
import json
import os
import traceback
from collections.abc import Callable
from typing import Self

import numpy as np
from pydantic import Field

from tofe_export import errors
from tofe_export.documents.base import Part
from tofe_export.documents.fields import AnyValue, Count, NotNegative, Positive, Side, Text, plain
from tofe_export.timing.blocks import measure
from tofe_export.timing.subjects import AnySubject

NO_BATCH = 0
"""Stands for the batch size of subjects with an input of their own."""
_FEW_ROUNDS = 3  # enough for the best that a machine can do


class Timed(Part):
    """Every measured call of a subject at a batch size, in milliseconds, round by round; `subject` is its place."""

    subject: Count
    batch: Count
    rounds_ms: tuple[tuple[NotNegative, ...], ...]


class Job(Part):
    """What one worker does.

    Attributes:
        image_shape: (D, H, W).
        seed: of the orders; the second number is the process's.
    """

    subjects: tuple[AnySubject, ...]
    image_shape: tuple[Positive, Side, Side]
    batches: tuple[Positive, ...]
    rounds: Positive
    seed: tuple[Count, Count]

    @property
    def steps(self) -> int:
        """How many rounds `run` reports."""
        fixed = any(subject.fixed_input for subject in self.subjects)
        return self.rounds * len(self.batches) + fixed * min(_FEW_ROUNDS, self.rounds)

    def run(self, on_round: Callable[[], None]) -> tuple[Timed, ...]:
        """Opens every subject, then times them together at one batch size after the other.

        Raises:
            TofeError: see `open` and `bind` of the subjects and their runners.
        """
        runners = list(enumerate(subject.open() for subject in self.subjects))
        fixed = [self.subjects[place].fixed_input for place, _ in runners]
        timed: list[Timed] = []
        for batch in (NO_BATCH, *self.batches):
            chosen = [one for one, own_input in zip(runners, fixed, strict=True) if own_input == (batch == NO_BATCH)]
            if not chosen:
                continue
            rounds = min(_FEW_ROUNDS, self.rounds) if batch == NO_BATCH else self.rounds
            images = np.random.default_rng(0).standard_normal((batch, *self.image_shape), dtype=np.float32)
            bound = [runner.bind(images) for _, runner in chosen]
            measured = measure(bound, rounds, (*self.seed, batch), on_round)
            timed += [
                Timed(subject=place, batch=batch, rounds_ms=timings.rounds_ms)
                for (place, _), timings in zip(chosen, measured, strict=True)
            ]
        return tuple(timed)


class Failure(Part):
    """An error on its way from a worker to its parent, where it is raised again.

    Attributes:
        kind: the name of its class.
        details: of a `TofeError`.
        number, path: of an `OSError`.
        module: of an import that failed.
        trace: the worker's traceback.
    """

    kind: Text
    message: Text
    next_step: Text = ""
    code: Text = ""
    details: dict[Text, AnyValue] = Field(default_factory=dict)
    number: int | None = None
    path: Text | None = None
    module: Text | None = None
    trace: Text = ""

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What can be said of an error in JSON."""
        trace = "".join(traceback.format_exception(error))
        if isinstance(error, errors.TofeError):
            details = {name: plain(_path_as_text(value)) for name, value in error.details.items()}
            kind, message = type(error).__name__, error.message
            return cls(
                kind=kind, message=message, next_step=error.next_step, code=error.code, details=details, trace=trace
            )
        found = cls(kind=type(error).__name__, message=str(error), trace=trace)
        if isinstance(error, OSError):
            path = None if error.filename is None else os.fsdecode(error.filename)
            return found.replaced(number=error.errno, path=path, message=error.strerror or str(error))
        return found.replaced(module=error.name) if isinstance(error, ImportError) else found

    def error(self) -> Exception:
        """The error, of its own class where that is this program's or Python's; its note is the worker's traceback."""
        kind = getattr(errors, self.kind, None) or getattr(builtins, self.kind, None)
        error: Exception
        if isinstance(kind, type) and issubclass(kind, errors.TofeError):
            error = kind(self.message, self.next_step, code=self.code, **self.details)
        elif self.number is not None:
            error = OSError(self.number, self.message, self.path)
        elif isinstance(kind, type) and issubclass(kind, ImportError):
            error = kind(self.message, name=self.module)
        elif kind in (MemoryError, RuntimeError, ValueError):
            error = kind(self.message)
        else:
            error = RuntimeError(f"{self.kind}: {self.message}")
        error.add_note(self.trace)
        return error


class Message(Part):
    """A line of a worker: that another round is done, or how the job ended."""

    timed: tuple[Timed, ...] | None = None
    failure: Failure | None = None

    def line(self) -> str:
        """As JSON in ASCII, with its newline."""
        return json.dumps(self.to_dict()) + "\n"


def _path_as_text(value: object) -> object:
    return os.fspath(value) if isinstance(value, os.PathLike) else value
