"""A run of a few steps on the digits, shared by the tests: its recipe, its weights, and how it dies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tofe_export.checkpoints import checkpoint
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.training.phase import Phase
from tofe_export.training.run import RunOptions

NETWORK = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 4, "num_heads": 2}
RECIPE = TrainingRecipe(name="test").changed(
    network={"backbone": "vit_tiny_patch16_224", "backbone_args": NETWORK, "positions": "sincos"},
    dense={"epochs": 2},
    tofe={"epochs": 2},
    run={"batch_size": 4, "limit_batches": 2, "limit_val": 8},
)
OPTIONS = RunOptions("digits", device="cpu")
SHORT = RECIPE.changed(dense={"epochs": 1}, tofe={"epochs": 1})


class KilledError(Exception):
    pass


def weights(path: Path) -> dict[str, torch.Tensor]:
    return checkpoint.load(path).model.state_dict()


def kill_after(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    """The process dies in the step that follows `steps` whole ones, counted over both phases."""
    make, done = Phase.step, 0

    def dying(*args: Any) -> dict[str, float]:
        nonlocal done
        values = make(*args)  # made, but its state is not saved
        done += 1
        if done > steps:
            raise KilledError
        return values

    monkeypatch.setattr(Phase, "step", dying)
