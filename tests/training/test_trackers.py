"""Real trackers get the numbers of steps.jsonl, a resumed run goes on in them, and one that fails ends no run."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import refused_as
from tests.training.runs import OPTIONS, RECIPE, SHORT, KilledError, kill_after
from tofe_export.documents.training_recipe import TrainingRecipe
from tofe_export.errors import MissingError
from tofe_export.files.names import STEPS
from tofe_export.files.names import TRACKERS as IDS
from tofe_export.training import recorder, trackers, trainer

_BLOCK = 1 << 15  # bytes
LOGGED = {"loss", "accuracy", "lr", "images_per_s", "wait_share", "phase_seconds_left"}


@pytest.fixture(autouse=True)
def _a_line_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_EVERY_S", 0.0)


def required(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is in the extra trackers")


def train(folder: Path, *names: str, recipe: TrainingRecipe = RECIPE, resume: bool = False) -> list[str]:
    notes: list[str] = []
    options = dataclasses.replace(OPTIONS, trackers=names)
    trainer.train(recipe, options, folder, resume=resume, note=notes.append)
    return notes


def killed(folder: Path, name: str, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_after(patch, steps)
        with pytest.raises(KilledError):
            train(folder, name)


def expected(folder: Path) -> dict[str, dict[int, float]]:
    """Name -> step of the whole run -> value, of a run of RECIPE; what ran again as it ran last."""
    numbers: dict[str, dict[int, float]] = {}
    for text in (folder / STEPS).read_text().splitlines():
        line = json.loads(text)
        step = (4 if line["phase"] == "tofe" else 0) + 2 * (line["epoch"] - 1) + line["step"]
        for name, value in line.items():
            if name not in ("phase", "epoch", "step", "time"):
                numbers.setdefault(f"{line['phase']}/{name}", {})[step] = value
    assert {name.partition("/")[2] for name in numbers} >= LOGGED
    return numbers


def same(found: Mapping[str, Mapping[int, float]], folder: Path) -> None:
    wanted = expected(folder)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name] == pytest.approx(values, rel=1e-6), name


def events(folder: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder / "tensorboard")).Reload()


def scalars(folder: Path) -> dict[str, dict[int, float]]:
    read = events(folder)
    return {name: {event.step: event.value for event in read.Scalars(name)} for name in read.Tags()["scalars"]}


def test_tensorboard(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    required("tensorboard")
    assert train(tmp_path, "tensorboard") == train(tmp_path / "alone")
    same(scalars(tmp_path), tmp_path)
    (text,) = events(tmp_path).Tensors("settings/text_summary")
    assert b"| tofe.budget | 0.5 |" in text.tensor_proto.string_val[0]
    assert capfd.readouterr() == ("", "")


def test_tensorboard_shows_each_step_of_a_resumed_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required("tensorboard")
    killed(tmp_path, "tensorboard", 5, monkeypatch)
    train(tmp_path, "tensorboard", resume=True)
    same(scalars(tmp_path), tmp_path)
    assert [event.step for event in events(tmp_path).Scalars("tofe/loss")] == [5, 6, 7, 8]


def test_a_run_without_a_dense_phase_begins_at_step_1(tmp_path: Path) -> None:
    required("tensorboard")
    trainer.train(SHORT, OPTIONS, tmp_path / "first")
    options = dataclasses.replace(OPTIONS, trackers=("tensorboard",), init=tmp_path / "first" / "ckpt.pth")
    trainer.train(RECIPE, options, tmp_path / "second")
    assert list(scalars(tmp_path / "second")["tofe/loss"]) == [1, 2, 3, 4]


def records(content: bytes) -> Iterator[bytes]:
    """Those in a .wandb file: seven bytes, then LevelDB's log of blocks, a checksum and a kind before each part."""
    place, whole = 7, b""
    while place + 7 <= len(content):
        if (left := _BLOCK - place % _BLOCK) < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", content, place + 4)
        whole += content[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def history(folder: Path) -> list[dict[str, Any]]:
    """What offline runs of Weights & Biases wrote, a dictionary per logged step."""
    from wandb.proto import wandb_internal_pb2

    rows: list[dict[str, Any]] = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for content in records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(content)
            if record.HasField("history"):
                items = record.history.item
                rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


def by_step(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    numbers: dict[str, dict[int, float]] = {}
    for row in rows:
        for name, value in row.items():
            if not name.startswith("_"):
                numbers.setdefault(name, {})[row["_step"]] = value
    return numbers


def test_weights_and_biases_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    required("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    train(tmp_path, "wandb")
    same(by_step(history(tmp_path)), tmp_path)
    assert capfd.readouterr() == ("", "")
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
    (run,) = tmp_path.glob("wandb/offline-run-*")
    assert run.name.endswith(json.loads((tmp_path / IDS).read_text())["wandb"])
    assert not list(run.glob("*.synced")), "nothing was sent"


def test_a_resumed_run_is_the_same_one_of_weights_and_biases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    required("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    killed(tmp_path, "wandb", 5, monkeypatch)
    train(tmp_path, "wandb", resume=True)
    same(by_step(history(tmp_path)), tmp_path)
    assert len({path.name for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}) == 1


def metrics(uri: str, folder: Path) -> dict[str, dict[int, float]]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    known = json.loads((folder / IDS).read_text())["mlflow"]
    run = client.get_run(known)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == folder.name
    assert run.data.params["tofe.budget"] == "0.5"
    assert len(run.data.params["network.backbone_args"]) == 500
    assert len(client.search_runs(["0"])) == 1
    names = run.data.metrics
    return {name: {one.step: one.value for one in client.get_metric_history(known, name)} for name in names}


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed and resumed; with a parameter that is longer than some servers take."""
    required("mlflow")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(trackers, "TRACKERS", trackers.TRACKERS | {"mlflow": ("mlflow", LongWinded)})
    killed(tmp_path / "run", "mlflow", 5, monkeypatch)
    train(tmp_path / "run", "mlflow", resume=True)
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "1"
    same(metrics(uri, tmp_path / "run"), tmp_path / "run")
    assert capfd.readouterr() == ("", "")


class LongWinded(trackers.MLflow):
    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str) -> None:
        super().__init__(folder, {**settings, "network.backbone_args": "x" * 9000}, known)


class Failing:
    """A tracker that fails in one of its methods."""

    id = "1"
    where = ""
    calls: list[object] = []  # noqa: RUF012

    def __init__(self, folder: Path, settings: Mapping[str, Any], known: str) -> None:
        self.fails("open")

    def fails(self, place: str) -> None:
        self.calls.append(place)
        if self.where == place:
            raise ConnectionError("The server is gone.\nTry again.")

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self.fails("log")

    def close(self, finished: bool) -> None:
        self.calls.append(finished)
        self.fails("close")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> type[Failing]:
    monkeypatch.setattr(trackers, "TRACKERS", {"failing": ("json", Failing)})
    monkeypatch.setattr(Failing, "calls", [])
    return Failing


@pytest.mark.parametrize(
    ("where", "calls"),
    [
        ("log", ["open", "log", False, "close"]),
        ("close", ["open", *["log"] * 4, True, "close", False, "close"]),
    ],
)
def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    where: str, calls: list[object], failing: type[Failing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "where", where)
    (note,) = [note for note in train(tmp_path, "failing", recipe=SHORT) if "failing" in note]
    assert note == "failing failed and gets no more numbers of this run: ConnectionError: The server is gone."
    assert failing.calls == calls
    assert (tmp_path / "ckpt.pth").exists()
    assert len((tmp_path / STEPS).read_text().splitlines()) == 4


def test_a_tracker_that_does_not_open_ends_the_run_before_it_begins(
    failing: type[Failing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failing, "where", "open")
    with refused_as("tracker-failed", MissingError, name="failing") as caught:
        train(tmp_path, "failing")
    assert "ConnectionError: The server is gone." in str(caught.value)
    assert not (tmp_path / STEPS).exists()


def test_a_stopped_run_is_closed_as_one_that_is_not_finished(
    failing: type[Failing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(tmp_path, "failing", 1, monkeypatch)
    assert failing.calls == ["open", "log", False, "close"]


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_a_package_that_is_not_there(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with refused_as("no-tracker", MissingError, name=name):
        train(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_a_folder_of_the_packages_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gadget").mkdir()  # as wandb makes one where it runs
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(trackers, "TRACKERS", {"gadget": ("gadget", Failing)})
    with refused_as("no-tracker", MissingError, name="gadget"):
        trackers.require_trackers(("gadget",))
