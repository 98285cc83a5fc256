"""Where a run's numbers go besides its own log files: TensorBoard, Weights & Biases, MLflow, where installed."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from tofe_export.errors import InputError, MissingError
from tofe_export.files.names import TRACKERS as IDS
from tofe_export.files.reading import read_json
from tofe_export.files.writing import write_text
from tofe_export.progress import Note

_PROJECT = "tofe-export"
_LONGEST_ERROR = 300  # characters
_LONGEST_PARAMETER = 500  # characters that servers of every version of MLflow take


class Tracker(Protocol):
    """Takes numbers by name as a run goes on. What it raises is its own."""

    id: str
    """Under which a resumed run goes on; "" where the folder is enough."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers after a step of the whole run, from 1."""

    def close(self, finished: bool) -> None:
        """The run is over, or stopped."""


class TensorBoard:
    """Event files in `folder`/tensorboard."""

    id = ""

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional package

        self._writers: Callable[..., Any] = SummaryWriter
        self._folder, self._settings = folder / "tensorboard", settings
        self._writer: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        if self._writer is None:  # opened only now, since it hides what the folder has from this step on: it runs again
            self._writer = self._writers(str(self._folder), purge_step=step)
            rows = "".join(f"| {name} | {value} |\n" for name, value in self._settings.items())
            self._writer.add_text("settings", f"| key | value |\n|---|---|\n{rows}", step)
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        """See `Tracker`."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run of the project `tofe-export`, or of the one in WANDB_PROJECT; WANDB_MODE=offline writes to the folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # to its maker; read at the import
        import wandb  # noqa: PLC0415 - an optional package

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            dir=str(folder),
            name=folder.resolve().name,
            config=dict(settings),
            id=known or None,
            resume="allow" if known else None,
            settings=wandb.Settings(silent=True, console="off"),  # the terminal is the command line's
        )
        self.id = str(self._run.id)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        if step >= self._run.step:  # a resumed run makes some steps again, with the same numbers
            self._run.log(dict(numbers), step=step)

    def close(self, finished: bool) -> None:
        """See `Tracker`."""
        self._run.finish(exit_code=0 if finished else 1)


class MLflow:
    """A run of the experiment in MLFLOW_EXPERIMENT_NAME, at the address in MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str) -> None:
        # What it says of its database and of its pages would go through the progress bars. Read at the import.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import mlflow  # noqa: PLC0415 - an optional package

        self._mlflow, run = mlflow, None
        with contextlib.suppress(mlflow.exceptions.MlflowException):  # removed there, or another server by now
            run = mlflow.start_run(run_id=known) if known else None
        if run is None:
            run = mlflow.start_run(run_name=folder.resolve().name)
            mlflow.log_params({name: str(value)[:_LONGEST_PARAMETER] for name, value in settings.items()})
        self.id = str(run.info.run_id)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._mlflow.log_metrics(dict(numbers), step=step)

    def close(self, finished: bool) -> None:
        """See `Tracker`."""
        self._mlflow.end_run("FINISHED" if finished else "KILLED")


TRACKERS: dict[str, tuple[str, Callable[[Path, Mapping[str, Any], str], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}
"""Name -> its package, and the class."""


class Trackers:
    """Those of a run, by name.

    One that fails is omitted from then on, with a note, and the run goes on: the log files have the same numbers.
    """

    def __init__(self, opened: Mapping[str, Tracker], note: Note) -> None:
        self._opened, self._note = dict(opened), note

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, tracker in list(self._opened.items()):
            with self._surviving(name), _without_warnings():
                tracker.log(numbers, step)

    def close(self, finished: bool) -> None:
        """See `Tracker`."""
        for name, tracker in list(self._opened.items()):
            with self._surviving(name), _without_warnings():
                tracker.close(finished)

    @contextlib.contextmanager
    def _surviving(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # whatever theirs raise
            failed = self._opened.pop(name)
            self._note(f"{name} failed and gets no more numbers of this run: {_said(error)}")
            with contextlib.suppress(Exception):  # so that it does not hold on to the run
                failed.close(False)


def require_trackers(names: tuple[str, ...]) -> None:
    """Raises InputError for an unknown one, MissingError for one whose package is not installed."""
    for name in names:
        if name not in TRACKERS:
            raise InputError(
                f"There is no place to log to that is called {name!r}.",
                f"Use some of: {', '.join(TRACKERS)}.",
                code="unknown-tracker",
                name=name,
            )
        package = TRACKERS[name][0]
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:  # a folder of that name, which a tracker makes, is not the package
            raise MissingError(
                f"The package {package} is not installed.",
                f"Type: pip install {package}; or leave {name} out.",
                code="no-tracker",
                name=name,
            )


def open_trackers(
    names: tuple[str, ...], folder: Path, settings: Mapping[str, Any], resumed: bool, note: Note
) -> Trackers:
    """The trackers of these names.

    Args:
        names: of `TRACKERS`.
        folder: of the run; keeps in trackers.json under which names it runs there.
        settings: shown with the run.
        resumed: go on with the runs that are there.
        note: takes what fails later.

    Raises:
        InputError, MissingError: see `require_trackers`; MissingError also for one that does not begin.
    """
    require_trackers(names)
    known = _known(folder / IDS) if resumed else {}
    opened: dict[str, Tracker] = {}
    for name in dict.fromkeys(names):
        try:
            with _without_warnings():
                opened[name] = TRACKERS[name][1](folder, settings, known.get(name, ""))
        except Exception as error:  # whatever theirs raise
            Trackers(opened, note).close(finished=False)
            raise MissingError(
                f"{name} does not take this run: {_said(error)}",
                f"Put that right, or leave {name} out.",
                code="tracker-failed",
                name=name,
            ) from error
    ids = known | {name: tracker.id for name, tracker in opened.items() if tracker.id}
    if ids != known:
        write_text(folder / IDS, json.dumps(ids) + "\n")
    return Trackers(opened, note)


def _known(path: Path) -> dict[str, str]:
    """Name -> id of the runs that trackers know; a file that cannot be read knows none."""
    try:
        content = read_json(path)
    except InputError:
        return {}
    return {name: value for name, value in content.items() if isinstance(value, str)}


@contextlib.contextmanager
def _without_warnings() -> Iterator[None]:
    """Nobody who trains can do anything about what these packages warn of in each other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _said(error: Exception) -> str:
    """An error of theirs in a line."""
    line = next(iter(str(error).strip().splitlines()), "")
    return textwrap.shorten(f"{type(error).__name__}: {line}" if line else f"{type(error).__name__}.", _LONGEST_ERROR)
