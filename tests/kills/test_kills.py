"""SIGKILL at random moments: the old set is whole or the new one, the next run works and leaves no litter.

`pytest -m slow tests/kills --kills 100` for the figure of 100 of each; every rename and flush by itself is in
tests/artifacts/test_sets.py.
"""

import json
import random
import time
from pathlib import Path

import pytest
import torch

from tests.kills import work
from tofe_export.artifacts.manifests import files_of, read_manifest
from tofe_export.checkpoints.checkpoint import load

TARGETS = {"onnx": "onnx.onnx", "quantize": "quantize.onnx", "trt": "trt.engine"}
pytestmark = pytest.mark.slow


def finish(verb: str, folder: Path, form: int) -> float:
    """A run that nobody kills; returns its seconds."""
    begun = time.monotonic()
    process = work.start(verb, folder, form)
    process.join()
    assert process.exitcode == 0, (folder / "log").read_text()
    return time.monotonic() - begun


def kill(verb: str, folder: Path, form: int, after: float) -> bool:
    """A run that is killed after the given number of seconds, and whether it was still running."""
    process = work.start(verb, folder, form)
    process.join(after)
    process.kill()
    process.join()
    assert process.exitcode in (0, -9), (folder / "log").read_text()
    return process.exitcode != 0


def content(target: Path) -> dict[str, bytes]:
    """Every file of a set that `read_manifest` accepts."""
    read_manifest(target)
    return {path.name: path.read_bytes() for path in files_of(target) if path.exists()}


def litter(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.suffix in (".part", ".pending", ".data")]


@pytest.mark.parametrize("verb", list(TARGETS))
def test_a_killed_run_leaves_the_old_set_or_the_new_one(
    verb: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    work.prepare(tmp_path)
    target, dice = tmp_path / TARGETS[verb], random.Random(verb)
    known = []
    for form in (0, 1):
        finish(verb, tmp_path, form)
        known.append(content(target))
    seconds = finish(verb, tmp_path, 1)  # of a warm process
    known[1] = content(target)
    killed = 0
    for number in range(request.config.getoption("--kills")):
        before, form = known[1 - number % 2], number % 2
        killed += kill(verb, tmp_path, form, dice.uniform(0, 1.02 * seconds))
        found = content(target)
        assert found in ((before, known[form]) if verb != "trt" else (before, _same_engine(found, known[form])))
        finish(verb, tmp_path, form)
        assert litter(tmp_path) == []
        known[form] = content(target)
    assert killed > 0


def _same_engine(found: dict[str, bytes], expected: dict[str, bytes]) -> dict[str, bytes]:
    """TensorRT does not build the same bytes each time; the manifest tells whether it is the same engine."""
    said, wanted = (json.loads(files["trt.engine.json"]) for files in (found, expected))
    changing = ("sha256",)
    alike = all(said[name] == wanted[name] for name in wanted if name not in changing)
    return found if alike else expected


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    finish("train", whole, 0)
    wanted, dice, killed = load(whole / "run" / "ckpt.pth"), random.Random("train"), 0
    log = (whole / "run" / "metrics.jsonl").read_text()
    seconds = finish("train", _made(tmp_path / "again"), 0)
    for number in range(request.config.getoption("--kills")):
        folder = _made(tmp_path / str(number))
        for _ in range(2):
            killed += kill("train", folder, 0, dice.uniform(0, seconds))
            _whole_run(folder / "run", wanted.weights_sha256)
        finish("train", folder, 0)
        assert litter(folder) == []
        assert load(folder / "run" / "ckpt.pth").weights_sha256 == wanted.weights_sha256
        assert _without_times(folder / "run" / "metrics.jsonl") == _without_times(whole / "run" / "metrics.jsonl"), log
    assert killed > 0


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _whole_run(run: Path, wanted: str) -> None:
    """What there is of a run is whole, and its log is that of its state, or of the epoch before."""
    epochs = len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0
    saved = 0
    if (run / "state.pt").exists():
        saved = len(torch.load(run / "state.pt", weights_only=True)["metrics"])
    assert epochs in (saved, saved - 1)
    if (run / "ckpt.pth").exists():
        assert load(run / "ckpt.pth").weights_sha256 == wanted
        assert saved == work.SETTINGS.dense_epochs + work.SETTINGS.epochs


def _without_times(path: Path) -> list[dict[str, object]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in entry.items() if "second" not in name} for entry in entries]
