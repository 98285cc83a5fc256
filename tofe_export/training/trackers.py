"""Where a run's numbers go besides its own log files: TensorBoard, Weights & Biases, MLflow, where installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from tofe_export.errors import InputError, MissingError


class Tracker(Protocol):
    """Takes numbers by name as a run goes on."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Numbers after a step of the whole run, from 1."""

    def close(self) -> None:
        """The run is over, or stopped."""


class TensorBoard:
    """Event files in `folder`/tensorboard."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional package

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See `Tracker`."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `tofe-export`, or of the one in WANDB_PROJECT; WANDB_MODE=offline writes to the folder."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb  # noqa: PLC0415 - an optional package

        self._run = wandb.init(project=None, dir=str(folder), name=folder.resolve().name, config=dict(settings))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._run.finish()


class MLflow:
    """A run of the experiment in MLFLOW_EXPERIMENT_NAME, at the address in MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import mlflow  # noqa: PLC0415 - an optional package

        self._mlflow = mlflow
        mlflow.start_run(run_name=folder.resolve().name)
        mlflow.log_params(dict(settings))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        self._mlflow.log_metrics({name.replace("/", "."): value for name, value in numbers.items()}, step=step)

    def close(self) -> None:
        """See `Tracker`."""
        self._mlflow.end_run()


TRACKERS: dict[str, tuple[str, Callable[[Path, Mapping[str, Any]], Tracker]]] = {
    "tensorboard": ("tensorboard", TensorBoard),
    "wandb": ("wandb", WeightsAndBiases),
    "mlflow": ("mlflow", MLflow),
}
"""Name -> its package, and the class."""


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
        if importlib.util.find_spec(package) is None:
            raise MissingError(
                f"The package {package} is not installed.",
                f"Type: pip install {package}; or leave {name} out.",
                code="no-tracker",
                name=name,
            )


def open_trackers(names: tuple[str, ...], folder: Path, settings: Mapping[str, Any]) -> list[Tracker]:
    """The trackers of these names; `settings` are shown with the run."""
    require_trackers(names)
    return [TRACKERS[name][1](folder, settings) for name in names]
