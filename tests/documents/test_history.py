"""The training log: each epoch once, as it ran last; what cannot be used counts as missing."""

import json
from pathlib import Path
from typing import Any

import pytest

from tofe_export.documents.history import DENSE, TOFE, read_history
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
