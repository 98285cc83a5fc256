"""The progress bar of a training run."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


def training_progress(console: Console | None = None) -> Progress:
    """A bar per epoch with loss, accuracy, kept ratios and budget; use it as a context manager.

    Args:
        console: where to draw; None makes one on standard error.
    """
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[status]}", markup=False),
        TimeElapsedColumn(),
        console=console or Console(stderr=True),
    )
