"""A short run for processes that torchrun starts: python -m tests.training.work RUN '{"steps": 25, ...}'."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.training.runs import OPTIONS, RECIPE
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import TofeError
from tofe_export.training import trainer
from tofe_export.training.loop import EpochMeans


def recipe_of(request: dict[str, Any]) -> TrainingRecipe:
    """Two epochs in all, of `steps` steps each."""
    run = {"batch_size": 8, "limit_batches": request["steps"], "limit_val": 30, **request.get("run", {})}
    return RECIPE.changed(dense={"epochs": 1}, tofe={"epochs": 1}, run=run)


def work(folder: Path, request: dict[str, Any]) -> None:
    """Trains; with `kill`, the last process dies after that number of steps."""
    left = request.get("kill", 0)

    def watch(means: EpochMeans) -> None:
        nonlocal left
        left -= 1
        if left == 0 and int(os.environ["RANK"]) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    trainer.train(recipe_of(request), OPTIONS, folder, resume=request.get("resume", False), watch=watch)


if __name__ == "__main__":
    try:
        work(Path(sys.argv[1]), json.loads(sys.argv[2]))
    except TofeError as error:
        print(f"{error.code}: {error}")
        sys.exit(error.exit_code)
