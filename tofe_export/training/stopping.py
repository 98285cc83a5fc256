"""Ctrl-C and SIGTERM during a run: the step is finished, the state saved, and then the run ends."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from tofe_export.errors import TofeError


class StoppedError(TofeError):
    """The user or the system stopped a run whose state is saved (exit code 130, or 143 for SIGTERM)."""

    default_code = "stopped"

    def __init__(self, message: str, next_step: str, number: int, **details: object) -> None:
        super().__init__(message, next_step, code="", **details)
        self.exit_code = 128 + number


class Stopping:
    """Whether somebody asked for an end."""

    def __init__(self) -> None:
        self.signal = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes both signals meanwhile; a second Ctrl-C ends the process as ever. In the main thread only."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def asked(number: int, frame: FrameType | None) -> None:
            self.signal = number
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
