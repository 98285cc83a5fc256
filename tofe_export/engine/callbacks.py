"""TensorRT's log and progress, passed on to ours. The classes derive from the backend's own, so each has its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tofe_export.progress import Progress

_KNOWN_NOISE = (
    "already exists, the output tensors of this new instance will not be queryable",  # a function used twice
    "is experimental",
)


@dataclass
class Log:
    """TensorRT's errors, in order, and its warnings worth showing."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def first_error(self) -> str:
        """The first error in one line; the later ones usually follow from it."""
        return " ".join(self.errors[0].split())[:400] if self.errors else "no reason was given"


def make_logger(trt: Any, log: Log) -> Any:
    """An `ILogger` that writes into `log`."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                log.errors.append(message)
            elif severity == trt.ILogger.WARNING and not any(noise in message for noise in _KNOWN_NOISE):
                log.warnings.append(message)

    return Logger()


def make_monitor(trt: Any, progress: Progress) -> Any:
    """An `IProgressMonitor` that reports the steps of outermost phases.

    Its `cancelled` says whether the user pressed Ctrl-C; TensorRT then stops at its next step.
    """
    steps: dict[str, int] = {}

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        cancelled = False

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                steps[phase_name] = num_steps
                self._show(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._show(phase_name, step + 1)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._show(phase_name, steps.get(phase_name, 0))

        def _show(self, phase_name: str, done: int) -> None:
            if phase_name not in steps:
                return
            try:
                progress(phase_name, done, steps[phase_name])
            except KeyboardInterrupt:
                self.cancelled = True

    return Monitor()
