"""The heap that a session leaves behind."""

from __future__ import annotations

import ctypes


def give_back_freed_memory() -> None:
    """Gives the system back what has been freed; by itself glibc keeps pieces of up to 32 MB for later (mallopt(3)).

    A session that was closed would otherwise go on taking as much as its weights. With other C libraries this does
    nothing.
    """
    try:
        trim = ctypes.CDLL(None).malloc_trim
    except (OSError, TypeError, AttributeError):  # Windows; macOS and musl
        return
    trim(0)
