"""Two processes with gloo train as one does with all of the images of a step; one that dies ends the run for all."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import refused_as
from tests.training.runs import OPTIONS, RECIPE, KilledError, weights
from tests.training.work import recipe_of
from tofe_export.training import processes, setup, trainer
from tofe_export.training.loop import EpochMeans
from tofe_export.training.processes import Processes, joined

REQUEST: dict[str, Any] = {"steps": 25}  # in each phase: 50 in all
_LIMIT_S = 240


def torchrun(folder: Path, request: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    return two_of("tests.training.work", str(folder), json.dumps(request))


def two_of(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.run(
        [*command, "-m", module, *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def entries(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


LOSSES = ("loss", "classification", "distillation", "approximation", "budget")


def assert_alike(found: Path, expected: Path) -> None:
    """Losses within 1e-5, weights within 1e-4: sums in another order, over 50 steps."""
    for one, other in zip(entries(found), entries(expected), strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            tolerance = 1e-5 if name in LOSSES else 1e-4
            assert value == pytest.approx(other[name], abs=tolerance), name
    theirs = weights(expected / "ckpt.pth")
    for name, value in weights(found / "ckpt.pth").items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-4)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    trainer.train(recipe_of(REQUEST), OPTIONS, folder)
    return folder


@pytest.mark.parametrize("run", [{}, {"shard": True}], ids=["whole copies", "shares of the weights"])
def test_two_processes_end_where_one_does(run: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    done = torchrun(tmp_path, {**REQUEST, "run": run})
    assert done.returncode == 0, done.stderr
    assert_alike(tmp_path, alone)


def test_parts_of_a_step_end_where_whole_steps_do(alone: Path, tmp_path: Path) -> None:
    """But for losses that are of each part: their weights are 0, lest a token near the threshold goes another way."""
    pulled = {"loss": {"approximation": 0.0, "budget": 0.0, "spread": 0.0}}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer.train(recipe_of(REQUEST).changed(**pulled), OPTIONS, whole)
    trainer.train(recipe_of({**REQUEST, "run": {"accumulate": 4}}).changed(**pulled), OPTIONS, parts)
    for one, other in zip(entries(parts), entries(whole), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-4)
        assert one.get("approximation") == pytest.approx(other.get("approximation"), abs=1e-5)
        assert one["accuracy"] == pytest.approx(other["accuracy"], abs=1e-2)
    dense = [entries(folder)[0] for folder in (parts, whole, alone)]
    assert dense[0]["loss"] == pytest.approx(dense[1]["loss"], abs=1e-6)
    assert dense[1] == dense[2]


@pytest.mark.parametrize(
    "run",
    [
        pytest.param({}, id="whole copies"),
        pytest.param({"shard": True}, id="shares of the weights", marks=pytest.mark.slow),
    ],
)
def test_a_lost_process_ends_the_run_and_one_alone_goes_on(run: dict[str, Any], alone: Path, tmp_path: Path) -> None:
    request = {**REQUEST, "run": run}
    done = torchrun(tmp_path, {**request, "kill": 33})
    assert done.returncode != 0
    assert "process-lost: Another process of this run has ended" in done.stdout
    assert len(entries(tmp_path)) == 1  # the dense epoch is saved, the other one was begun
    trainer.train(recipe_of(request), OPTIONS, tmp_path, resume=True)
    assert_alike(tmp_path, alone)


@pytest.mark.slow
def test_one_process_and_then_two_go_on_with_shares_of_the_weights(alone: Path, tmp_path: Path) -> None:
    """The optimizer's state of one process fits two, which hold a part of every weight each."""
    request = {**REQUEST, "run": {"shard": True}}
    left = 33

    def watch(means: EpochMeans) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise KilledError

    with pytest.raises(KilledError):
        trainer.train(recipe_of(request), dataclasses.replace(OPTIONS, save_minutes=0), tmp_path, watch=watch)
    done = torchrun(tmp_path, {**request, "resume": True})
    assert done.returncode == 0, done.stdout + done.stderr
    assert_alike(tmp_path, alone)


def test_one_run_after_another_in_the_same_processes() -> None:
    done = two_of("tests.training.meetings")
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_process_computes_and_exchanges_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What PyTorch is told; without a GPU it cannot be seen what that does."""
    told: list[Any] = []
    as_torchrun(monkeypatch, rank=3)
    monkeypatch.setattr(torch.cuda, "set_device", told.append)
    store = torch.distributed.HashStore()
    monkeypatch.setattr(processes, "rendezvous", lambda name, **how: iter([(store, 3, 8)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda name, **how: told.extend([name, how]))
    for name, answer in {"get_rank": 3, "get_world_size": 8, "destroy_process_group": None}.items():
        monkeypatch.setattr(torch.distributed, name, lambda answer=answer: answer)
    device = torch.device("cuda", 3)
    with joined(device) as found:
        assert found == Processes(3, 8)
    assert told[:2] == [device, "nccl"]
    assert told[2]["device_id"] == device


def as_torchrun(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in {"TORCHELASTIC_RUN_ID": "run", "WORLD_SIZE": "8", "LOCAL_RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)


def test_one_gpu_for_all_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    as_torchrun(monkeypatch, rank=3)
    with refused_as("one-device-for-all", name="cuda:1") as caught:
        setup.choose_device("cuda:1")
    assert 'device="cuda"' in caught.value.next_step


def test_a_step_that_cannot_be_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused_as("batch-size-shares", batch=4, parts=3) as caught:
        setup.require_divisible(RECIPE, 3)
    assert "such as 3" in caught.value.next_step


def test_outside_torchrun_its_variables_mean_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "8")
    short = RECIPE.changed(dense={"epochs": 0}, tofe={"epochs": 1}, run={"limit_batches": 1})
    assert trainer.train(short, OPTIONS, tmp_path).path.exists()
