"""steps.jsonl of runs of a few steps, and that whoever watches hears the pace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.training.runs import OPTIONS, RECIPE, SHORT, KilledError, kill_after
from tofe_export.documents.history import DENSE, TOFE, read_pace
from tofe_export.files.names import STEPS
from tofe_export.training import recorder, trainer
from tofe_export.training.loop import EpochMeans


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / STEPS).read_text().splitlines()]


def test_a_line_says_how_fast_its_steps_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer.train(RECIPE, OPTIONS, tmp_path / "epochs")
    found = lines(tmp_path / "epochs")
    places = [("dense", 1, 2), ("dense", 2, 2), ("tofe", 1, 2), ("tofe", 2, 2)]
    assert [(line["phase"], line["epoch"], line["step"]) for line in found] == places, "an epoch ends with a line"
    for line in found:
        assert line["images_per_s"] == pytest.approx(2 * RECIPE.run.batch_size / line["seconds"])
        assert 0 <= line["wait_share"] <= 1
    assert [line["phase_seconds_left"] > 0 for line in found] == [True, False, True, False]
    monkeypatch.setattr(recorder, "_EVERY_S", 0.0)
    trainer.train(SHORT, OPTIONS, tmp_path / "steps")
    assert [(line["phase"], line["step"]) for line in lines(tmp_path / "steps")] == [
        ("dense", 1), ("dense", 2), ("tofe", 1), ("tofe", 2)
    ]  # fmt: skip


def test_a_killed_run_goes_on_in_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_EVERY_S", 0.0)
    with monkeypatch.context() as patch:
        kill_after(patch, 3)
        with pytest.raises(KilledError):
            trainer.train(RECIPE, OPTIONS, tmp_path)
    with (tmp_path / STEPS).open("a") as log:
        log.write('{"phase": "dense", "epo')
    trainer.train(RECIPE, OPTIONS, tmp_path, resume=True)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 1, 1, 2, 1, 2, 1, 2]
    pace = read_pace(tmp_path / STEPS)
    assert [[(one.epoch, one.step) for one in pace.phase(name)] for name in (DENSE, TOFE)] == [
        [(1, 1), (1, 2), (2, 1), (2, 2)]
    ] * 2


def test_a_run_that_left_no_state_leaves_no_steps_to_the_next(tmp_path: Path) -> None:
    (tmp_path / STEPS).write_text('{"phase": "dense", "epoch": 7, "step": 1}\n')
    trainer.train(SHORT, OPTIONS, tmp_path)
    assert [line["epoch"] for line in lines(tmp_path)] == [1, 1]


def test_the_pace_is_watched_from_its_first_measurement_in_a_phase(tmp_path: Path) -> None:
    watched: list[EpochMeans] = []
    trainer.train(RECIPE, OPTIONS, tmp_path, watch=watched.append)
    known = [means.images_per_s is not None for means in watched]
    assert known == [False, False, True, True] * 2
    first, _, second, _ = lines(tmp_path)
    assert watched[2].images_per_s == first["images_per_s"]
    assert watched[6].seconds_left == second["phase_seconds_left"] > 0
