"""Signals to a run: it goes on exactly where it stopped, at whatever moment the signal came."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers import refused_as
from tests.training.runs import OPTIONS, RECIPE, weights
from tofe_export.errors import StoppedError
from tofe_export.training import stopping, trainer
from tofe_export.training.loop import EpochMeans
from tofe_export.training.measuring import Measuring
from tofe_export.training.processes import Processes
from tofe_export.training.resume import require_same
from tofe_export.training.state import load_state
from tofe_export.training.stopping import Stopping


def send(number: signal.Signals = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (1, "1 step of epoch 1 of the dense phase"),
        (2, "2 steps of epoch 1 of the dense phase"),  # the last of it: the held-out images can wait
        (4, "2 steps of epoch 2 of the dense phase"),
        (5, "1 step of epoch 1 of the tofe phase"),
        (8, "2 steps of epoch 2 of the tofe phase"),
    ],
)
def test_a_stopped_run_resumes_to_bitwise_equal_weights(step: int, said: str, finished: Path, tmp_path: Path) -> None:
    made, notes = 0, list[str]()

    def watch(means: EpochMeans) -> None:
        nonlocal made
        made += 1
        if made == step:
            send(signal.SIGTERM)

    with refused_as("stopped", StoppedError, path=tmp_path) as caught:
        trainer.train(RECIPE, OPTIONS, tmp_path, watch=watch, note=notes.append)
    assert caught.value.message == f"Stopped after {said}; the state is saved in {tmp_path}."
    assert caught.value.exit_code == 143
    assert made == step
    assert [note for note in notes if "stops after this step" in note]
    expected = weights(finished / "ckpt.pth")
    found = weights(trainer.train(RECIPE, OPTIONS, tmp_path, resume=True).path)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert (tmp_path / "metrics.jsonl").read_text() == (finished / "metrics.jsonl").read_text()


def test_a_signal_while_held_out_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = Measuring.evaluation

    def interrupted(self: Measuring, *arguments: Any) -> Any:
        send()
        return measure(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Measuring, "evaluation", interrupted)
        with refused_as("stopped", StoppedError) as caught:
            trainer.train(RECIPE, OPTIONS, tmp_path)
    assert caught.value.message.startswith("Stopped after epoch 1 of the dense phase;")
    state = load_state(tmp_path)
    assert state is not None
    assert state.place == ("dense", 1, 0)


def test_before_and_after_the_steps_signals_do_what_they_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr("tofe_export.training.budget.set_thresholds", lambda *arguments: send())
    with pytest.raises(KeyboardInterrupt):
        trainer.train(RECIPE, OPTIONS, tmp_path)
    state = load_state(tmp_path)
    assert state is not None
    assert state.place == ("tofe", 2, 0)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_signal_ends_at_once() -> None:
    one = Stopping()
    with pytest.raises(KeyboardInterrupt), one.listening():
        send()
        assert one.signal == signal.SIGINT
        send()


def test_a_note_that_cannot_be_shown_hinders_nothing() -> None:
    def broken(sentence: str) -> None:
        raise RuntimeError("reentrant call")

    one = Stopping(broken)
    with one.listening():
        send()
    assert one.signal == signal.SIGINT


def test_what_torchrun_passes_on_is_the_same_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm and the terminal send it to all processes, and torchrun sends it to those that it started once more."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    one = Stopping()
    with one.listening():
        send()
        send()
    assert one.signal == signal.SIGINT
    monkeypatch.setattr(stopping, "_ECHO_S", 0.0)
    with pytest.raises(KeyboardInterrupt), one.listening():
        send()


def test_a_run_in_another_thread_takes_no_signals(tmp_path: Path) -> None:
    before, seen = signal.getsignal(signal.SIGINT), list[Any]()

    def listen() -> None:
        with Stopping().listening():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_signal_that_comes_while_the_others_are_asked_is_not_lost() -> None:
    class Slow(Processes):
        def total(self, values: torch.Tensor) -> torch.Tensor:
            one.signal = signal.SIGTERM
            return values

    one = Stopping()
    assert one.agreed(False, Slow(), torch.device("cpu")) == (False, 0)
    assert one.agreed(False, Slow(), torch.device("cpu")) == (False, signal.SIGTERM)


def test_processes_that_find_other_states_do_not_begin(tmp_path: Path) -> None:
    require_same([("dense", 1, 0)] * 2, tmp_path)
    require_same([None, None], tmp_path)
    with refused_as("states-differ", path=tmp_path):
        require_same([("dense", 1, 0), None], tmp_path)
