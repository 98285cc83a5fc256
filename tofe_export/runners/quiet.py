"""Keeps libraries in C++ from writing to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

_STDERR = 2
_LOCK = threading.Lock()
_hiding = 0  # how many hide them now
_kept: int | None = None


@contextlib.contextmanager
def native_messages_hidden() -> Iterator[None]:
    """What goes to standard error meanwhile, from Python too, goes nowhere: errors still come as exceptions.

    Of threads that hide them at the same time the first one hides them and the last one shows them again. A process
    without a standard error is left as it is.
    """
    _change(1)
    try:
        yield
    finally:
        _change(-1)


def _change(by: int) -> None:
    global _hiding, _kept  # noqa: PLW0603 - the stream is the process's own
    with _LOCK:
        before, _hiding = _hiding, _hiding + by
        if sys.__stderr__ is not None:
            sys.__stderr__.flush()
        if before == 0:
            with contextlib.suppress(OSError):  # closed
                _kept = os.dup(_STDERR)
                with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - the null device has no Path
                    os.dup2(nowhere.fileno(), _STDERR)
        elif _hiding == 0 and _kept is not None:
            os.dup2(_kept, _STDERR)
            os.close(_kept)
            _kept = None
