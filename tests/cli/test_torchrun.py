"""Two processes that torchrun started: one speaks, a refusal is said once, and a signal saves what one can resume."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tests.cli.conftest import program
from tests.cli.training import TORCHRUN, children, ended, started, train, wait_for
from tofe_export.cli import failures, processes
from tofe_export.errors import InputError, MissingError, StoppedError
from tofe_export.training.state import load_state


def _own(text: str) -> list[str]:
    """The lines of this program, without torchrun's report of processes that failed."""
    return [line for line in text.splitlines() if line.startswith(("Error:", "Next:", "Note:", "Images:", "Wrote"))]


def test_one_of_two_processes_speaks(tmp_path: Path) -> None:
    with started(tmp_path, TORCHRUN, *train(3)) as process:
        code, out, err = ended(process)
    assert code == 0, err
    accuracy, kept, wrote, following = out.splitlines()
    assert accuracy.startswith("Held-out accuracy")
    assert kept.startswith("Tokens kept per stage")
    assert (wrote, following) == ("Wrote run/ckpt.pth", "Next:  tofe-export onnx run/ckpt.pth")
    assert sum(line.startswith("Images:") for line in err.splitlines()) == 1
    assert err.count("ToFe 1/1") == 1


@pytest.mark.slow
def test_a_refusal_is_said_once_and_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, TORCHRUN, *train(3, "--lr", -1)) as process:
        code, out, err = ended(process)
    assert code != 0
    assert not out
    assert _own(err) == ["Error: --lr is -1.0, but it must be greater than 0.", "Next:  Give another value."]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, id="Ctrl-C"), pytest.param(signal.SIGTERM, id="SIGTERM", marks=pytest.mark.slow)],
)
def test_a_signal_saves_and_one_process_goes_on(number: signal.Signals, tmp_path: Path) -> None:
    with started(tmp_path, TORCHRUN, *train(150)) as process:
        wait_for(tmp_path / "run" / "metrics.jsonl", process)
        own = [int(child) for child in children(process)]
        assert len(own) == 2
        for one in own:  # as Slurm does; torchrun sends it once more
            os.kill(one, number)
        process.send_signal(number)
        code, out, err = ended(process)
    assert code != 0
    assert not out
    note, message, following = _own(err)
    assert note.startswith("Note: The run stops after this step")
    assert message.startswith("Error: Stopped after ")
    assert following == "Next:  Continue it: the same torchrun command with --resume at its end"
    state = load_state(tmp_path / "run")
    assert state is not None
    assert 0 < state.place[2] < 150
    resumed = program(tmp_path)(*train(150, "--resume"))
    assert resumed.returncode == 0, resumed.stderr
    assert "Wrote run/ckpt.pth" in resumed.stdout


@pytest.mark.parametrize(
    ("error", "waits", "said"),
    [
        (StoppedError("Stopped.", number=2, code="stopped"), processes._STOPPED_S, False),
        (KeyboardInterrupt(), processes._STOPPED_S, False),
        (InputError("A folder that only this machine lacks.", "Share it.", code="x"), processes._REFUSED_S, True),
        (MissingError("No such device.", code="no-device"), processes._REFUSED_S, True),
        (MissingError("Too little memory.", code="memory"), 0, True),
        (MissingError("Another process has ended.", code="process-lost"), 0, True),
        (ZeroDivisionError("a defect"), 0, True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_process_beside_the_first_says_what_it_alone_met(
    error: BaseException,
    waits: float,
    said: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    for name, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    code = failures.show(error)
    assert code == failures.explain(error)[2]
    assert sum(slept) == waits
    assert bool(capsys.readouterr().err) == said
    monkeypatch.setenv("RANK", "0")
    failures.show(error)
    assert sum(slept) == waits
    assert capsys.readouterr().err
