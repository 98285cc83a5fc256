"""Ctrl-C and SIGTERM during a run: the step is finished, the state saved, and then the run ends."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import torch

from tofe_export.progress import Note, unheard
from tofe_export.training import torchrun
from tofe_export.training.processes import Processes

_HEARD = "The run stops after this step, when its state is saved. A second Ctrl-C ends it at once."
_ECHO_S = 5.0


class Stopping:
    """Whether somebody asked for an end.

    Attributes:
        signal: the first that came; 0 while there is none.
    """

    def __init__(self, note: Note = unheard) -> None:
        self.signal = 0
        self._note = note
        self._since = 0.0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes both signals meanwhile; a second one does what the first would have done before.

        In the main thread only: Python handles signals in no other.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def asked(number: int, frame: FrameType | None) -> None:
            if not self.signal:
                self.signal, self._since = number, time.monotonic()
                with contextlib.suppress(Exception):  # it may come while something else is being printed
                    self._note(_HEARD)
            elif not self._is_echo():
                signal.signal(number, before[signal.Signals(number)])
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, asked)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _is_echo(self) -> bool:
        """Whether this may be the first signal once more: torchrun passes on what Slurm has sent to its processes."""
        return torchrun.started() and time.monotonic() - self._since < _ECHO_S

    def agreed(self, due: bool, processes: Processes, device: torch.device) -> tuple[bool, int]:
        """Whether the state is `due` to be saved, as the first process sees it, and the signal that any process got."""
        own = self.signal  # another one may come while the processes wait for each other
        flags = torch.tensor([float(due and processes.first), float(own)], device=device)
        saving, asked = processes.total(flags).tolist()
        return bool(saving), max(processes.gathered(own)) if asked else 0
