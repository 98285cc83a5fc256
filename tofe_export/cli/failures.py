"""Every error as a sentence, the next step and the exit code."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tofe_export.cli.next_steps import STEPS
from tofe_export.cli.options import as_options
from tofe_export.cli.processes import leave_to_first
from tofe_export.cli.terminal import debugging, printable
from tofe_export.errors import TofeError, nearest
from tofe_export.files.names import readable

DEFECT = 70
STOPPED = 130
_MEMORY = (
    *("OutOfMemory", "can't allocate memory", "cannot allocate memory", "not enough memory"),
    "failed to map segment",  # of a library
)
_SMALLER = "Free some memory, or take a smaller batch or network."


class Escaped(Exception):  # noqa: N818 - it carries an error, its cause
    """Carries an error through typer, which would take some of them for its own and end with 1."""


def escaping(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb`, with its errors wrapped in `Escaped`, except those that are meant for typer."""

    @functools.wraps(verb)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            verb(*arguments, **options)
        except (OSError, EOFError, KeyboardInterrupt) as error:
            raise Escaped from error

    return run


def show(error: BaseException) -> int:
    """Prints the error on standard error, with a traceback where TOFE_DEBUG=1.

    Returns:
        The exit code, whatever happens while this is shown.
    """
    if isinstance(error, Escaped) and error.__cause__ is not None:
        error = error.__cause__
    code = DEFECT
    # A terminal that cannot be written to must not pass for the outcome of the work.
    with contextlib.suppress(Exception):
        message, next_step, code = explain(error)
        if leave_to_first(error):
            return code
        from tofe_export.cli import console

        if debugging():
            console.err.print(printable("".join(traceback.format_exception(error))), soft_wrap=True)
        if message:
            console.err.print(_indented(f"Error: {message}"), style="red", soft_wrap=True)
        if next_step:
            console.err.print(_indented(f"Next:  {next_step}"), soft_wrap=True)
    return code


def _indented(text: str) -> str:
    """Indents further lines, so that nothing in a file's name passes for a line of this program."""
    return printable(text).rstrip("\n").replace("\n", "\n       ")


def explain(error: BaseException) -> tuple[str, str, int]:
    """A sentence, the next step ("" where there is none) and the exit code, as the command line says them.

    Options stand for arguments, and a command for the next step where there is one.
    """
    if isinstance(error, TofeError):
        given = [str(value) for value in error.details.values()]
        names = [*given, *map(readable, given)]
        step = STEPS[error.code](error.details) if error.code in STEPS else as_options(error.next_step, names)
        return as_options(error.message, names), step, error.exit_code
    if isinstance(error, KeyboardInterrupt) or type(error).__name__ == "Abort":
        return "Stopped.", "", STOPPED
    if hasattr(error, "format_message"):
        return _usage(error)
    return _of_the_machine(error) or (
        f"Something went wrong inside tofe-export: {type(error).__name__}: {error}",
        "Run again with TOFE_DEBUG=1 for the traceback, and please report it.",
        DEFECT,
    )


def _usage(error: Any) -> tuple[str, str, int]:
    """typer's complaint about the command line; without arguments that is the help itself."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        return "", "", int(error.exit_code)
    path = context.command_path if context is not None else "tofe-export"
    message = error.format_message().replace(": Value error, ", ": ")
    if getattr(error, "possibilities", None):  # of an option; typer lists them in brackets
        likely = nearest(error.option_name, error.possibilities)
        message = f"No such option: {error.option_name}. Did you mean {likely}?"
    return message, f"See what there is: {path} --help", int(error.exit_code)


def _of_the_machine(error: BaseException) -> tuple[str, str, int] | None:
    """What the machine or its system refused; None where the error may be a mistake of this program."""
    if isinstance(error, MemoryError) or any(sign in f"{type(error).__name__} {error}" for sign in _MEMORY):
        return "This machine has too little memory for that.", _SMALLER, 3
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return "This machine does not start any more threads.", "Close other programs, or raise the limit.", 3
    if isinstance(error, ModuleNotFoundError) and not str(error.name).startswith("tofe_"):
        return f"The package {error.name} is not installed.", "pip install 'tofe-export[cpu]'", 3
    return _of_files(error) if isinstance(error, OSError) else None


def _of_files(error: OSError) -> tuple[str, str, int] | None:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk is full: {error}", "Free some space, or write elsewhere.", 3
    if error.errno == errno.EFBIG:
        return (
            "A file would be larger than the limit for files here.",
            "Raise the limit (ulimit), or write elsewhere.",
            3,
        )
    if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return f"This machine has run out of something: {error.strerror}.", "Close other programs and try again.", 3
    try:
        Path.cwd()
    except OSError:
        return "The folder you are in is gone.", "Change into another: cd", 2
    if error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}.", "Check the path and its permissions.", 2
    return None
