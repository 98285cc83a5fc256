"""Keeps libraries in C++ from writing to the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STDERR = 2


@contextlib.contextmanager
def native_messages_hidden() -> Iterator[None]:
    """What goes to standard error meanwhile, from Python too, goes nowhere: errors still come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(_STDERR)
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123 - the null device has no Path
            os.dup2(nowhere.fileno(), _STDERR)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, _STDERR)
        os.close(kept)
