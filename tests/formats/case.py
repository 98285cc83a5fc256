"""One file, what must become of it, and what did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from tofe_export.checkpoints.checkpoint import load
from tofe_export.checkpoints.foreign import Hints
from tofe_export.errors import TofeError
from tofe_export.model import backbones

CLOSE = 1e-4
"""Largest difference of logits or tokens that are up to about 10."""

Make = Callable[[Path], Path]
"""Writes into an empty folder; the path that a user would give."""


@dataclass(frozen=True)
class Case:
    """A file.

    Attributes:
        group, name: for the table.
        make: writes it.
        source: the network that wrote it, which must compute the same; None where it must be refused.
        hints: what the user would say with it.
    """

    group: str
    name: str
    make: Make
    source: nn.Module | None = None
    hints: Hints = field(default_factory=Hints)


@dataclass(frozen=True)
class Outcome:
    """What became of a case: `equal`, `refused`, or a fault: `differs`, `taken`, `dead end`, `crash`."""

    verdict: str
    sentence: str = ""

    def fits(self, case: Case) -> bool:
        """Whether it is what must become of it."""
        return self.verdict == ("refused" if case.source is None else "equal")


def judge(case: Case, folder: Path) -> Outcome:
    """Makes the file and reads it as `tofe-export onnx` does."""
    path = case.make(folder)
    try:
        loaded = load(path, case.hints)
    except TofeError as error:
        sentence = str(error).replace(str(folder), "FOLDER")
        return Outcome("refused" if error.next_step else "dead end", sentence)
    except Exception as error:  # what this set exists to find
        return Outcome("crash", f"{type(error).__name__}: {error}"[:200])
    if case.source is None:
        return Outcome("taken", loaded.recognised)
    with torch.inference_mode():
        images = backbones.zero_images(loaded.model.vit, 2).normal_(generator=torch.Generator().manual_seed(0))
        mine, theirs = loaded.model.vit(images), case.source(images)
    difference = float((mine - theirs).abs().max()) if mine.shape == theirs.shape else float("inf")
    return Outcome("equal" if difference < CLOSE else "differs", f"largest difference {difference:.1e}")
