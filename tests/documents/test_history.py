"""The training logs: each epoch and step once, as it ran last; what cannot be used counts as missing."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tofe_export.documents.history import DENSE, TOFE, Pace, read_history, read_pace
from tofe_export.errors import InputError
from tofe_export.training.state import write_metrics

DENSE_EPOCHS = [{"phase": "dense", "epoch": n, "accuracy": 0.1 * n, "val_accuracy": 0.1 * n} for n in (1, 2, 3)]
TOFE_EPOCHS = [
    {"phase": "tofe", "epoch": n, "val_accuracy": 0.3 + 0.1 * n, "keep_mean": [0.7, 0.4, 0.2], "keep_std": [0.1] * 3,
     "macs_ratio": 0.6}
    for n in (1, 2)
]  # fmt: skip


def log(folder: Path, *lines: object) -> Path:
    path = folder / "metrics.jsonl"
    path.write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return path


def test_the_log_of_the_trainer_is_read(tmp_path: Path) -> None:
    write_metrics(tmp_path, [*DENSE_EPOCHS, *TOFE_EPOCHS])
    history = read_history(tmp_path / "metrics.jsonl")
    assert [place for place, _ in history.phase(TOFE)] == [4, 5]
    assert history.final_accuracy(DENSE) == pytest.approx(0.3)
    assert history.final_accuracy(TOFE) == pytest.approx(0.5)
    assert history.phase(TOFE)[0][1].keep_mean == (0.7, 0.4, 0.2)


def test_a_torn_last_line_is_what_a_killed_run_leaves(tmp_path: Path) -> None:
    assert len(read_history(log(tmp_path, *DENSE_EPOCHS, '{"phase": "de')).epochs) == 3
    with pytest.raises(InputError) as caught:
        read_history(log(tmp_path, DENSE_EPOCHS[0], "not JSON", DENSE_EPOCHS[1]))
    assert (caught.value.code, caught.value.details["line"]) == ("history-line", 2)


def test_an_epoch_that_ran_twice_counts_once(tmp_path: Path) -> None:
    again = {**DENSE_EPOCHS[2], "val_accuracy": 0.9}
    history = read_history(log(tmp_path, *DENSE_EPOCHS, again))
    assert len(history.epochs) == 3
    assert history.final_accuracy(DENSE) == pytest.approx(0.9)


@pytest.mark.parametrize("value", [None, True, "x", [], {}, 10**400, float("nan"), float("inf"), -1e9, [0.1, None]])
def test_a_value_that_cannot_be_used_counts_as_missing(tmp_path: Path, value: Any) -> None:
    (epoch,) = read_history(log(tmp_path, dict.fromkeys(TOFE_EPOCHS[0], value) | {"phase": "tofe"})).epochs
    assert epoch.val_accuracy is None
    assert epoch.macs_ratio is None
    assert epoch.number is None or isinstance(value, int)
    assert not epoch.keep_mean
    assert read_history(log(tmp_path, {**TOFE_EPOCHS[0], "phase": value})).epochs == ()


def stretch(step: int, epoch: int = 1, phase: str = "dense", **values: object) -> dict[str, object]:
    return {"phase": phase, "epoch": epoch, "step": step, "time": 1e9 + step, "seconds": 10.0, "images_per_s": 50.0,
            "wait_share": 0.1, **values}  # fmt: skip


def read(*lines: object) -> Pace:
    with tempfile.TemporaryDirectory() as folder:
        return read_pace(log(Path(folder), *lines))


def test_a_step_that_ran_twice_counts_once() -> None:
    killed = [stretch(10), stretch(20), stretch(30)]
    resumed = [stretch(17, images_per_s=70.0), stretch(27), stretch(5, epoch=2), stretch(5, phase="tofe")]
    pace = read(*killed, *resumed)
    assert [(one.phase, one.epoch, one.step) for one in pace.stretches] == [
        ("dense", 1, 10), ("dense", 1, 17), ("dense", 1, 27), ("dense", 2, 5), ("tofe", 1, 5)
    ]  # fmt: skip
    assert [one.images_per_s for one in pace.phase(DENSE)] == [50, 70, 50, 50]


def test_a_stretch_lasts_as_it_says_or_since_the_one_before_it() -> None:
    silent = [stretch(step, seconds=None) for step in (10, 25)]
    pace = read(stretch(5), *silent, stretch(30, time=None, seconds="long"), stretch(2, phase="tofe"))
    assert pace.seconds(DENSE) == [10, 5, 15, 0]
    assert pace.seconds(TOFE) == [10]


def test_lines_of_the_step_log_that_cannot_be_used() -> None:
    assert len(read(stretch(1), '{"phase": "de').stretches) == 1
    for other in ({"phase": "dreaming"}, {"epoch": None}, {"step": 0}, {"step": True}):
        assert read({**stretch(1), **other}).stretches == ()
    with pytest.raises(InputError) as caught:
        read(stretch(1), "not JSON", stretch(2))
    assert (caught.value.code, caught.value.details["line"]) == ("history-line", 2)


@pytest.mark.parametrize("value", [None, True, "x", [], -1, 10**400, float("nan"), float("inf")])
def test_a_pace_that_cannot_be_used_counts_as_missing(value: Any) -> None:
    names = ("time", "seconds", "images_per_s", "wait_share", "gpu_memory_gib")
    (one,) = read(stretch(1, **dict.fromkeys(names, value))).stretches
    assert [getattr(one, name) for name in names] == [None] * 5


PLACES = st.tuples(st.sampled_from(["dense", "tofe"]), st.integers(1, 3), st.integers(1, 4))


@given(st.lists(PLACES, max_size=12))
def test_whatever_was_resumed_the_stretches_are_in_order(places: list[tuple[str, int, int]]) -> None:
    pace = read(*(stretch(step, epoch, phase, lr=number) for number, (phase, epoch, step) in enumerate(places)))
    kept = [(one.phase, one.epoch, one.step) for one in pace.stretches]
    assert kept == sorted(set(kept))
    assert kept[-1:] == places[-1:], "the run is where its last line says"
    assert {place for at, place in enumerate(places) if all(place < later for later in places[at + 1 :])} == set(kept)
