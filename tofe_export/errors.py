"""Every error a user can cause: a sentence in the user's terms, and what to do next.

Messages name arguments, in backticks: "`keep` and `keep_from` were both given." The command line writes its options
instead, and for some codes the command to type. Anything else that escapes is a defect of this program.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TofeError(Exception):
    """Base of all errors shown to the user.

    Args:
        message: what happened, in one sentence.
        next_step: what to do next, in one sentence.
        code: identifies the error whatever its wording: "manifest-hash".
        details: values of the message that a caller or the command line reads, such as `path`.
    """

    exit_code = 2
    default_code = "error"

    def __init__(self, message: str, next_step: str = "", *, code: str = "", **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step
        self.code = code or self.default_code
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes: as it is, whatever arguments its class takes."""
        return _rebuilt, (type(self), self.args, vars(self))


def _rebuilt(kind: type[TofeError], arguments: tuple[object, ...], values: dict[str, object]) -> TofeError:
    error = kind.__new__(kind, *arguments)
    vars(error).update(values)
    return error


class CheckFailedError(TofeError):
    """A check ran and failed: parity, accuracy (exit code 1)."""

    exit_code = 1
    default_code = "check-failed"


class InputError(TofeError):
    """A file, a value or a combination of arguments that cannot be used (exit code 2)."""

    exit_code = 2
    default_code = "input"


class MissingError(TofeError):
    """This machine lacks something: a package, a network, disk space, a device (exit code 3)."""

    exit_code = 3
    default_code = "missing"


class StoppedError(TofeError):
    """The user or the system ended a run by a signal: exit code 130 for Ctrl-C, 143 for SIGTERM.

    Args:
        message, next_step, code, details: see `TofeError`.
        number: of the signal.
    """

    exit_code = 130
    default_code = "stopped"

    def __init__(self, message: str, next_step: str = "", *, number: int, code: str = "", **details: object) -> None:
        super().__init__(message, next_step, code=code, **details)
        self.exit_code = 128 + number


def brief(value: object) -> str:
    """`value` as Python writes it, for an error message: at most 80 characters."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or lists thousands deep
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def count(number: int, thing: str) -> str:
    """1 -> "1 image", 2 -> "2 images"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def nearest(name: str, candidates: Iterable[str], count: int = 3) -> str:
    """The candidates most like `name`, as a phrase for an error message ("a, b or c")."""
    pool = list(candidates)
    names = difflib.get_close_matches(name, pool, n=count, cutoff=0.4) or sorted(pool)[:count]
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + f" or {names[-1]}"
