"""Training on the GPU: it ends, in bfloat16 too; a killed run goes on exactly; and a run moves to a processor."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.training.test_trainer import CONFIG, SETTINGS, KilledError, kill_after, weights
from tofe_export.training import trainer

ON_GPU = dataclasses.replace(SETTINGS, device="cuda")


def test_the_first_steps_are_those_of_a_processor(tmp_path: Path) -> None:
    """In float32, before rounding has had time to grow; random numbers differ between devices in the ToFe phase."""
    short = dataclasses.replace(SETTINGS, amp=False, dense_epochs=1, epochs=1, limit_batches=1)
    entries = []
    for device in ("cpu", "cuda"):
        folder = tmp_path / device
        trainer.train(dataclasses.replace(short, device=device), CONFIG, folder)
        entries.append((folder / "metrics.jsonl").read_text().splitlines()[0])
    losses = [json.loads(entry)["loss"] for entry in entries]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("epochs", [1, 3])
def test_a_killed_run_goes_on(epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(trainer.train(ON_GPU, CONFIG, tmp_path / "whole"))
    with monkeypatch.context() as patch:
        kill_after(patch, epochs)
        with pytest.raises(KilledError):
            trainer.train(ON_GPU, CONFIG, tmp_path / "killed")
    found = weights(trainer.train(ON_GPU, CONFIG, tmp_path / "killed", resume=True))
    for name, value in whole.items():  # sums of CUDA's atomic additions are not the same twice
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)


def test_a_run_moves_to_a_processor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, 2)
        with pytest.raises(KilledError):
            trainer.train(ON_GPU, CONFIG, tmp_path)
    found = weights(trainer.train(SETTINGS, CONFIG, tmp_path, resume=True))
    assert all(value.isfinite().all() for value in found.values())
