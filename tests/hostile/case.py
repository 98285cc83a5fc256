"""What a hostile input is: a command line, the folder it is typed in, and what may come of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

VERBS = (
    *("doctor", "demo", "train", "tune", "onnx", "optimize", "quantize", "trt", "verify", "bench", "predict"),
    *("inspect", "report"),
)
ANY = frozenset({0, 1, 2, 3})
REFUSED = frozenset({2})
NOT_HERE = frozenset({2, 3})
FINE = frozenset({0, 1})  # small random networks may fail a check


class Skip(Exception):  # noqa: N818 - not an error: this machine cannot show the case
    """Raised by `Case.prepare`; says why."""


@dataclass(frozen=True)
class Surroundings:
    """What the program finds when it starts, beside files and arguments.

    Attributes:
        environment: variables to set; None removes one.
        limits: RLIMIT_* -> value.
        stdin, stdout, stderr: "file" (captured; stdin: empty), "closed", "full" (/dev/full), "pipe" (nobody reads),
            "terminal" (one that works), "gone" (a terminal whose window was closed).
        size: rows and columns of that terminal.
        folder: the working directory: "work", "deleted" or "read-only".
        signal: sent once `signal_when` exists, or as soon as the program runs where it is "".
        umask: of the process.
        spare: bytes of addresses beyond those it begins with.
    """

    environment: Mapping[str, str | None] = field(default_factory=dict)
    limits: Mapping[int, int] = field(default_factory=dict)
    stdin: str = "file"
    stdout: str = "file"
    stderr: str = "file"
    size: tuple[int, int] = (24, 80)
    folder: str = "work"
    signal: int = 0
    signal_when: str = ""
    umask: int = 0o022
    spare: int | None = None


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        family, verb, what: its name; together unique.
        arguments: after `tofe-export`; bytes where they are not UTF-8.
        kit: files and folders of the kit that are copied into the working directory; "a>b" copies a as b.
        prepare: changes the working directory before the program starts.
        writes: glob patterns, below the working directory, of what it may make or replace; "/" first: of the sandbox.
        codes: exit codes that are right.
        around: see `Surroundings`.
        real: a process from scratch instead of a fork of one that has loaded everything.
        seconds: after so long it hangs.
        removes: glob patterns of what may be gone afterwards.
        keeps_on_failure: what was there under a name of `writes` stays as it was when the program exits with 2 or 3.
        check: looks at the working directory and the text afterwards; yields what is wrong.
    """

    family: str
    verb: str
    what: str
    arguments: tuple[str | bytes, ...]
    kit: tuple[str, ...] = ()
    prepare: Callable[[Path], object] | None = None
    writes: tuple[str, ...] = ()
    codes: frozenset[int] = ANY
    around: Surroundings = Surroundings()
    real: bool = False
    seconds: float = 120
    removes: tuple[str, ...] = ()
    keeps_on_failure: bool = True
    check: Callable[[Path, str], Iterable[str]] | None = None

    @property
    def name(self) -> str:
        """family/verb/what"""
        return f"{self.family}/{self.verb}/{self.what}"

    def but(self, **changes: object) -> Case:
        """Itself with other fields."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]
