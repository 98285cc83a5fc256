"""Every error a user can cause: a sentence in the user's terms, and the next thing to type.

The command line turns these into two lines on standard error and the exit code below; anything else that
escapes is a defect of this program.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TofeError(Exception):
    """Base of all errors shown to the user.

    Args:
        message: what happened, one sentence.
        next_step: what to do or type next, one sentence or command.
    """

    exit_code = 2

    def __init__(self, message: str, next_step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class CheckFailedError(TofeError):
    """A check ran and failed: parity, accuracy (exit code 1)."""

    exit_code = 1


class InputError(TofeError):
    """A file, a value or a combination of options that cannot be used (exit code 2)."""

    exit_code = 2


class MissingError(TofeError):
    """This machine lacks something: a package, a network, disk space, a device (exit code 3)."""

    exit_code = 3


def brief(value: object) -> str:
    """`value` as Python writes it, for an error message: at most 80 letters of it, whatever it is."""
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
    found = difflib.get_close_matches(name, pool, n=count, cutoff=0.4) or sorted(pool)[:count]
    return found[0] if len(found) == 1 else ", ".join(found[:-1]) + f" or {found[-1]}"
