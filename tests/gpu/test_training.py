"""Training on the GPU: it ends, in bfloat16 too; a killed run goes on exactly; and a run moves to a processor."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.training.runs import OPTIONS, RECIPE, KilledError, kill_after, weights
from tofe_export.training import trainer

ON_GPU = dataclasses.replace(OPTIONS, device="cuda")


def test_the_first_steps_are_those_of_a_processor(tmp_path: Path) -> None:
    """In float32, before rounding has had time to grow; random numbers differ between devices in the ToFe phase."""
    short = RECIPE.changed(dense={"epochs": 1}, tofe={"epochs": 1}, run={"precision": "fp32", "limit_batches": 1})
    entries = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        trainer.train(short, dataclasses.replace(OPTIONS, device=device), folder)
        entries.append((folder / "metrics.jsonl").read_text().splitlines()[0])
    losses = [json.loads(entry)["loss"] for entry in entries]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("steps", [2, 6])
def test_a_killed_run_goes_on(steps: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(trainer.train(RECIPE, ON_GPU, tmp_path / "whole").path)
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            trainer.train(RECIPE, ON_GPU, tmp_path / "killed")
    found = weights(trainer.train(RECIPE, ON_GPU, tmp_path / "killed", resume=True).path)
    for name, value in whole.items():  # sums of CUDA's atomic additions are not the same twice
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_run_moves_to_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 4)
        with pytest.raises(KilledError):
            trainer.train(RECIPE, ON_GPU, tmp_path)
    found = weights(trainer.train(RECIPE, OPTIONS, tmp_path, resume=True).path)
    assert all(value.isfinite().all() for value in found.values())
