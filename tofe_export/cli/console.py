"""What the user sees: tables on standard output, progress and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tofe_export.artifacts.places import STDOUT, own_descriptor
from tofe_export.cli.terminal import printable
from tofe_export.errors import TofeError

# A pipe or a log has no width of its own; a narrow terminal wraps lines, which loses less than narrow columns do.
_WIDTH = max(80, shutil.get_terminal_size().columns) if sys.stdout is not None and sys.stdout.isatty() else 110
# Without markup: "[v2]" and ":cat:" are good names for files.
out = Console(highlight=False, markup=False, emoji=False, width=_WIDTH)
err = Console(highlight=False, markup=False, emoji=False, stderr=True)

Report = Callable[[str, int, int], None]
_STDOUT_DESCRIPTOR = 1
unwritten: list[TofeError] = []
"""Documents of this run that could not be written; said at the end, for what was found is worth showing still."""


def say(text: str) -> None:
    """A line on standard output."""
    out.print(_line(text), soft_wrap=True)


def warn(lines: Sequence[str]) -> None:
    """Lines on standard error."""
    for line in lines:
        err.print(_line(line), style="yellow", soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> None:
    """A table on standard output; with `numbers`, every column but the first is right-aligned."""
    made = Table(title=_line(title), title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if numbers and index else "left", overflow="fold")
    for row in rows:
        made.add_row(*map(_line, row))
    out.print(made)


def print_json(document: dict[str, Any]) -> None:
    """The document alone on standard output, for other programs; whatever is said from here on goes elsewhere."""
    _print_alone(json.dumps(document, indent=2, ensure_ascii=not _takes_unicode()) + "\n")


def leave_alone(path: Path | None) -> None:
    """Where a document goes to standard output, whatever is said from here on goes elsewhere."""
    if path is not None and (path == STDOUT or own_descriptor(path) == _STDOUT_DESCRIPTOR):
        out.stderr = True


def save_json(path: Path | None, document: dict[str, Any]) -> None:
    """Writes the document where --json asked for it; before anything is said of it, for nobody may be listening."""
    leave_alone(path)
    if path == STDOUT:
        print_json(document)
    elif path is not None:
        from tofe_export.artifacts.files import write_json

        _save(path, lambda: write_json(path, document))


def save_text(path: Path | None, make: Callable[[], str]) -> None:
    """Writes a text where an option asked for it; see `save_json`."""
    leave_alone(path)
    if path == STDOUT:
        _print_alone(make())
    elif path is not None:
        from tofe_export.artifacts.files import write_text

        _save(path, lambda: write_text(path, make()))


@contextlib.contextmanager
def progress() -> Iterator[Report]:
    """A progress bar per task on standard error; yields the function that jobs report to."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err) as bar:
        tasks: dict[str, TaskID] = {}

        def report(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bar.add_task(_line(task), total=total)
            bar.update(tasks[task], completed=done, total=total)

        yield report


def _save(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except TofeError as error:
        unwritten.append(error)
    else:
        say(f"Wrote {path}")


def _line(text: str) -> str:
    """`text` on one line, whatever a name in it holds."""
    return printable(text).replace("\n", "\\n")


def _takes_unicode() -> bool:
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")


def _print_alone(text: str) -> None:
    sys.stdout.write(text.encode("utf-8", "backslashreplace").decode())
    out.stderr = True
