"""What the user sees: tables on standard output, progress and errors on standard error."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from tofe_export.cli.options import as_options
from tofe_export.cli.terminal import printable
from tofe_export.errors import TofeError
from tofe_export.files.places import STDOUT, own_descriptor
from tofe_export.files.writing import write_text
from tofe_export.progress import Progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from tofe_export.artifacts.ends import EndsAgreement
    from tofe_export.documents.base import Document
    from tofe_export.documents.images import ImagesRead
    from tofe_export.documents.onnx_options import OnnxOptions
    from tofe_export.training.loop import EpochMeans, Watch

# A pipe or a log has no width of its own; a narrow terminal wraps lines, which loses less than narrow columns do.
_WIDTH = max(80, shutil.get_terminal_size().columns) if sys.stdout is not None and sys.stdout.isatty() else 110
# Without markup: "[v2]" and ":cat:" are good names for files.
out = Console(highlight=False, markup=False, emoji=False, width=_WIDTH)
err = Console(highlight=False, markup=False, emoji=False, stderr=True)

_STDOUT_DESCRIPTOR = 1
_BARS = 6  # of epochs at a time, in a terminal
unwritten: list[TofeError] = []
"""Documents of this run that could not be written: an error at its end, after the results are shown."""


def say(text: str) -> None:
    """A line on standard output."""
    out.print(_line(text), soft_wrap=True)


def warn(*lines: str) -> None:
    """Lines on standard error."""
    for line in lines:
        err.print(_line(line), style="yellow", soft_wrap=True)


def notes(texts: Iterable[str]) -> None:
    """Sentences of the package about its results, on standard error."""
    warn(*(f"Note: {as_options(text)}" for text in texts))


def assumptions(texts: Iterable[str]) -> None:
    """What had to be assumed of a checkpoint, on standard error; verbs say it last."""
    warn(*(f"Assumed: {as_options(text)}" for text in texts))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> None:
    """A table on standard output; with `numbers`, every column but the first is right-aligned."""
    grid = Table(title=_line(title), title_justify="left", header_style="bold")
    for index, column in enumerate(columns):
        grid.add_column(column, justify="right" if numbers and index else "left", overflow="fold")
    for row in rows:
        grid.add_row(*map(_line, row))
    out.print(grid)


def counted(counts: Mapping[str, int]) -> str:
    """ "12 MatMul, 3 Add"."""
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def show_images(images: ImagesRead) -> None:
    """Shows on standard error how many images were read and left out, and why; nothing where none were to be read."""
    from tofe_export.data.image_log import image_lines

    if images.left_out or images.notes:
        warn(*image_lines(images))
    elif images.read:
        err.print(*image_lines(images), soft_wrap=True)


def show_ends(ends: EndsAgreement | None, options: OnnxOptions) -> None:
    """How a file prepares images and names classes, if it does."""
    if ends is None:
        return
    told = []
    if options.input == "image":
        apart = f"{ends.differing:.2%} of the pixels differ by one level from timm's"
        told.append(apart if ends.differing else "every pixel as timm prepares it")
    if options.top:
        told.append(f"top-{options.top} as the logits say, probabilities within {ends.probability:.0e}")
    say(f"  ends         {ends.samples} images: {', '.join(told)}")


def leave_alone(path: Path | None) -> None:
    """Sends later lines to standard error where a document goes to standard output."""
    if path is not None and (path == STDOUT or own_descriptor(path) == _STDOUT_DESCRIPTOR):
        out.stderr = True


def save_json(path: Path | None, document: Document) -> None:
    """Writes the document where --json names a file, before its results are shown: standard output may be closed."""
    if path == STDOUT and not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf"):
        save_text(path, lambda: json.dumps(document.to_dict(), indent=2) + "\n")
    else:
        save_text(path, document.to_json)


def save_text(path: Path | None, make: Callable[[], str]) -> None:
    """Writes a text where an option names a file; see `save_json`."""
    leave_alone(path)
    if path is None:
        return
    if path == STDOUT:
        sys.stdout.write(make().encode("utf-8", "backslashreplace").decode())
        return
    try:
        write_text(path, make())
    except TofeError as error:
        unwritten.append(error)
    else:
        say(f"Wrote {path}")


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """A bar per task on standard error; yields the function that jobs call."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=err) as bars:
        yield _advancing(bars, {})


@contextlib.contextmanager
def training_progress() -> Iterator[tuple[Progress, Watch]]:
    """A bar per epoch on standard error, with loss, pace, accuracy, kept ratios and budget; yields what training calls.

    A narrow terminal breaks their line, and a low one has no room for the bars of all epochs: it would hide the last.
    """
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars
    from rich.table import Column

    status: dict[str, str] = {}

    def watch(means: EpochMeans) -> None:
        parts = [f"loss {means.loss:.3f}"]
        if means.images_per_s is not None and means.seconds_left is not None:
            parts.append(f"{means.images_per_s:.0f} images/s, {_clock(means.seconds_left)} left in phase")
        parts.append(f"accuracy {means.accuracy:.1%}")
        if means.macs_ratio is not None:
            shares = " ".join(f"{share:.2f}" for share in means.kept)
            parts.append(f"kept {shares}  MACs {means.macs_ratio:.2f} (budget {means.budget:g})")
        status["status"] = "  ".join(parts)

    rest = Column(ratio=1)  # all that the other columns leave
    columns = (BarColumn(bar_width=10), TextColumn("{task.fields[status]}", markup=False, table_column=rest))
    title = TextColumn("{task.description}", markup=False)
    with Bars(title, *columns, TimeElapsedColumn(), console=err, expand=True) as bars:
        yield _advancing(bars, status, _BARS if err.is_terminal else None), watch


def _advancing(bars: Bars, fields: dict[str, str], most: int | None = None) -> Progress:
    """The function that moves the bar of a task; its columns show `fields` as they are at the time.

    Only the latest `most` bars stay; None for all.
    """
    tasks: dict[str, TaskID] = {}

    def advance(task: str, done: int, total: int) -> None:
        if task not in tasks:
            tasks[task] = bars.add_task(_line(task), total=total, status="")
            for old in [*tasks.values()][:-most] if most is not None else ():
                bars.update(old, visible=False)
        shown: dict[str, Any] = {"completed": done, "total": total, **(fields if done else {})}
        bars.update(tasks[task], **shown)

    return advance


def _clock(seconds: float) -> str:
    """3725.4 -> "1:02:05"; hours are not turned into days."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _line(text: str) -> str:
    """`text` on one line, whatever a name in it holds."""
    return printable(text).replace("\n", "\\n")
