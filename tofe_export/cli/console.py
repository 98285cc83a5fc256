"""What the user sees: tables on standard output, progress and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_WIDTH = None if sys.stdout.isatty() else 110  # a pipe or a log has no width of its own
out = Console(highlight=False, width=_WIDTH)
err = Console(stderr=True, highlight=False)

Report = Callable[[str, int, int], None]


def say(text: str) -> None:
    """A line on standard output."""
    out.print(text, markup=False, soft_wrap=True)


def warn(lines: Sequence[str]) -> None:
    """Lines on standard error."""
    for line in lines:
        err.print(line, markup=False, style="yellow", soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> None:
    """A table on standard output; with `numbers`, every column but the first is right-aligned."""
    made = Table(title=title, title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if numbers and index else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(escape, row))
    out.print(made)


def print_json(document: dict[str, Any]) -> None:
    """The document alone on standard output, for other programs."""
    sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def save_json(path: Path | None, document: dict[str, Any]) -> None:
    """Writes the document where --json asked for it."""
    if path is not None:
        from tofe_export.artifacts.files import write_json

        write_json(path, document)
        say(f"Wrote {path}")


def save_text(path: Path | None, make: Callable[[], str]) -> None:
    """Writes a text where an option asked for it."""
    if path is not None:
        from tofe_export.artifacts.files import write_text

        write_text(path, make())
        say(f"Wrote {path}")


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A progress bar per task on standard error; yields the function that jobs report to."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bar.add_task(task, total=total)
            bar.update(tasks[task], completed=done, total=total)

        yield report
