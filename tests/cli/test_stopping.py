"""Signals during `tofe-export train`, sent to real processes: what is saved, what is said, and how the run goes on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import program
from tests.cli.test_refusals import refused
from tests.cli.training import PROGRAM, ended, started, train, wait_for, wait_for_child
from tofe_export.checkpoints import checkpoint
from tofe_export.cli.next_steps import STEPS
from tofe_export.training.state import load_state

_STEPS = 120


def assert_the_same(found: Path, expected: Path) -> None:
    """Two runs that ended alike, bit by bit."""
    ours, theirs = (checkpoint.load(folder / "run" / "ckpt.pth").model.state_dict() for folder in (found, expected))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (found / "run" / "metrics.jsonl").read_text() == (expected / "run" / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = program(folder)(*train(_STEPS), OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.parametrize(
    ("number", "workers", "code"),
    [
        pytest.param(signal.SIGINT, 0, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 1, 143, id="SIGTERM to all processes", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_is_stopped_says_how_it_goes_on(
    number: signal.Signals, workers: int, code: int, uninterrupted: Path, tmp_path: Path
) -> None:
    arguments = train(_STEPS, "--workers", workers)
    with started(tmp_path, PROGRAM, *arguments) as process:
        wait_for(tmp_path / "run" / "metrics.jsonl", process)
        os.killpg(process.pid, number)  # as the terminal, torchrun or Slurm does: workers get it too
        ended_with, out, err = ended(process)
    assert ended_with == code, err
    assert not out
    state = load_state(tmp_path / "run")
    assert state is not None
    phase, epochs, steps = state.place
    assert (phase, epochs) == ("dense", 0)
    assert 0 < steps < _STEPS, "not in the middle of an epoch"
    assert "Note: The run stops after this step" in err
    *_, message, following = err.splitlines()
    said = f"{steps} steps" if steps > 1 else "1 step"
    assert message == f"Error: Stopped after {said} of epoch 1 of the dense phase; the state is saved in run."
    start, _, typed = following.rpartition(": ")
    assert start == "Next:  Continue it"
    assert shlex.split(typed) == ["tofe-export", *arguments, "--resume"]

    again = train(_STEPS, "--resume") if workers else shlex.split(typed)[1:]  # how many there are decides nothing
    resumed = program(tmp_path)(*again, OMP_NUM_THREADS="1")
    assert resumed.returncode == 0, resumed.stderr
    assert_the_same(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    """Before the first step, here, so that nothing was saved, and nothing is promised."""
    arguments = [word if word != "8" else "30000" for word in train(1, "--workers", 1)]  # images that take a while
    with started(tmp_path, PROGRAM, *arguments) as process:
        wait_for_child(process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        code, out, err = ended(process)
    assert code == 130, err
    assert not out
    note, message, following = [line for line in err.splitlines() if line and not line.startswith("dense backbone")]
    assert note.startswith("Note: The run stops after this step")
    assert message == "Error: Stopped before any state was saved."
    assert shlex.split(following.partition("Next:  Start again: ")[2]) == ["tofe-export", *arguments]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["Ctrl-C", "SIGTERM"])
@pytest.mark.parametrize("saved", [False, True], ids=["nothing saved", "a state of before"])
def test_a_signal_before_the_first_step_ends_at_once(
    saved: bool,
    number: signal.Signals,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted(*arguments: object) -> None:
        os.kill(os.getpid(), number)
        time.sleep(60)

    if saved:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "state.pt").write_bytes(b"of before")
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tofe_export.training.setup.open_labelled", interrupted)
    ended_with, text = refused([*train(1), "--resume"], monkeypatch, capsys)
    assert ended_with == code, text
    message, _, following = text.partition(" Next: ")
    if saved:
        assert message.endswith("Error: Stopped at once; what was saved last is in run.")
        assert following.startswith("Continue it: tofe-export train --data digits")
    else:
        assert message.endswith("Error: Stopped before any state was saved.")
        assert following.startswith("Start again: tofe-export train --data digits")
    assert following.count("--resume") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_the_next_step_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "train", "--data", "my images", "-o", "$HOME/run", "--set", "run.seed=3"])
    assert STEPS["stopped"]({}) == (
        "Continue it: tofe-export train --data 'my images' -o '$HOME/run' --set run.seed=3 --resume"
    )
    monkeypatch.setattr(sys, "argv", ["x", "demo", "-o", "d"])
    assert STEPS["stopped"]({}) == "Continue it: tofe-export demo -o d"
    monkeypatch.setattr(sys, "argv", ["notebook"])
    assert STEPS["stopped"]({}) == "Continue it: type the same command with --resume"
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(sys, "argv", ["x", "train"])
    assert STEPS["stopped"]({}) == "Continue it: the same torchrun command with --resume at its end"
