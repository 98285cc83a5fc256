"""Resuming: a killed run goes on exactly; what a run cannot be resumed with; damaged states."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.helpers import refused_as
from tests.training.runs import OPTIONS, RECIPE, SHORT, KilledError, kill_after, weights
from tofe_export.errors import InputError
from tofe_export.training import trainer
from tofe_export.training.phase import Phase
from tofe_export.training.state import load_state


@pytest.mark.parametrize("minutes", [0.0, 60.0], ids=["saved after each step", "saved after each epoch"])
@pytest.mark.parametrize("steps", [0, 1, 2, 3, 4, 5, 7])
def test_a_killed_run_resumes_to_bitwise_equal_weights(
    steps: int, minutes: float, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = dataclasses.replace(OPTIONS, save_minutes=minutes)
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            trainer.train(RECIPE, options, tmp_path)
    torch.rand(3)  # the new process has other random numbers
    made = 0
    with monkeypatch.context() as patch:
        make = Phase.step

        def counted(*args: Any) -> dict[str, float]:
            nonlocal made
            made += 1
            return make(*args)

        patch.setattr(Phase, "step", counted)
        found = weights(trainer.train(RECIPE, options, tmp_path, resume=True).path)
    assert made == 8 - (steps if minutes == 0 else steps // 2 * 2)
    expected = weights(finished / "ckpt.pth")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert (tmp_path / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


def test_resume_after_the_end_writes_the_same_checkpoint(finished: Path) -> None:
    before = weights(finished / "ckpt.pth")
    (finished / "ckpt.pth").unlink()
    after = weights(trainer.train(RECIPE, OPTIONS, finished, resume=True).path)
    assert all(torch.equal(before[key], after[key]) for key in before)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tofe": {"lr": 0.5}}, "tofe.lr was 0.001 and is now 0.5"),
        ({"run": {"seed": 9}}, "run.seed was 0 and is now 9"),
        ({"loss": {"budget": 3.0}}, "loss.budget was 10.0 and is now 3.0"),
        ({"tofe": {"epochs": 1}}, "tofe.epochs was 2 and is now 1"),
        ({"dense": {"epochs": 3}}, "dense.epochs was 2 and is now 3"),
        ({"network": {"selector": "linear"}}, "selector was 'mlp' and is now 'linear'"),
    ],
    ids=str,
)
def test_resume_with_other_settings_is_refused(finished: Path, change: dict[str, Any], words: str) -> None:
    with refused_as("resumed-with-other-settings", changes=(words,)):
        trainer.train(RECIPE.changed(**change), OPTIONS, finished, resume=True)


def test_what_only_changes_memory_and_speed_may_change(finished: Path) -> None:
    """As the refusal for want of memory says. Thresholds are measured again, with another order of sums."""
    before = weights(finished / "ckpt.pth")
    changed = RECIPE.changed(run={"checkpointing": True, "channels_last": True})
    after = weights(trainer.train(changed, OPTIONS, finished, resume=True).path)
    for key, value in before.items():
        torch.testing.assert_close(after[key], value, rtol=0, atol=1e-5)


def test_more_epochs_go_on_after_the_last(finished: Path, tmp_path: Path) -> None:
    for name in ("state.pt", "ckpt.pth"):
        shutil.copy(finished / name, tmp_path)
    trainer.train(RECIPE.changed(tofe={"epochs": 3}), OPTIONS, tmp_path, resume=True)
    state = load_state(tmp_path)
    assert state is not None
    assert [entry["phase"] for entry in state.metrics] == ["dense", "dense", "tofe", "tofe", "tofe"]


def test_other_images_are_refused(tmp_path: Path) -> None:
    for label, name in enumerate("ab"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (20, 20), (90 * label, index, 0)).save(tmp_path / "data" / name / f"{index}.png")
    options = dataclasses.replace(OPTIONS, data=str(tmp_path / "data"))
    trainer.train(SHORT, options, tmp_path / "run")
    (tmp_path / "data" / "b").rename(tmp_path / "data" / "c")
    with refused_as("resumed-with-other-settings", changes=("classes was ['a', 'b'] and is now ['a', 'c']",)):
        trainer.train(SHORT, options, tmp_path / "run", resume=True)


def test_a_run_is_not_overwritten(finished: Path, tmp_path: Path) -> None:
    with refused_as("run-exists", path=finished):
        trainer.train(RECIPE, OPTIONS, finished)
    for name in ("ckpt.pth", "metrics.jsonl"):  # somebody removed state.pt to save space
        (tmp_path / name).write_bytes((finished / name).read_bytes())
    for resume in (True, False):
        with refused_as("run-finished", path=tmp_path):
            trainer.train(RECIPE, OPTIONS, tmp_path, resume=resume)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (finished / "metrics.jsonl").read_bytes()


def test_damaged_state_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "state.pt").write_bytes(b"PK half a file")
    with refused_as("training-state", path=tmp_path / "state.pt"):
        trainer.train(RECIPE, OPTIONS, tmp_path, resume=True)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("tofe-export/training-state/3", "was written by another version of this program"),
        ("tofe-export/tuning/1", "is not a training state"),
        (None, "is not a training state"),
    ],
)
def test_a_state_of_another_version(finished: Path, tmp_path: Path, written: str | None, said: str) -> None:
    state = torch.load(finished / "state.pt", weights_only=True)
    torch.save({**state, "format": written}, tmp_path / "state.pt")
    with pytest.raises(InputError, match=said):
        trainer.train(RECIPE, OPTIONS, tmp_path, resume=True)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs_done": -1},
        {"epochs_done": 10**9},
        {"epochs_done": "two"},
        {"optimizer": {}},
        {"teacher": {}},
        {"model": {"a": torch.ones(1)}},
        {"metrics": []},
        {"metrics": ["good"]},
        {"metrics": [{"phase": "dense", "loss": torch.ones(1)}]},
        {"phase": "dreaming"},
        {"config": "vit"},
        {"recipe": {"lr": torch.ones(2)}},
        {"data": 3},
        {"epoch": {"steps": -1, "sums": {}}},
        {"epoch": {"steps": 1, "sums": {"loss": "low"}}},
        {"dense_accuracy": "good"},
    ],
    ids=str,
)
def test_a_state_with_a_part_that_cannot_be_right(finished: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    state = torch.load(finished / "state.pt", weights_only=True)
    assert state["phase"] == "tofe"
    torch.save({**state, **change}, tmp_path / "state.pt")
    log = (finished / "metrics.jsonl").read_bytes()
    (tmp_path / "metrics.jsonl").write_bytes(log)
    with pytest.raises(InputError, match="damaged, so the run cannot be resumed"):
        trainer.train(RECIPE, OPTIONS, tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_bytes() == log
