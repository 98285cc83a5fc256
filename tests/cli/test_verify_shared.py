"""verify in two processes that torchrun started: what they find together is what one finds alone."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import program
from tests.cli.training import TORCHRUN, ended, started
from tofe_export.errors import InputError
from tofe_export.training.processes import Processes

IMAGES = 21  # an odd number, and a class of which one process gets more


@pytest.fixture(scope="module")
def folder(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.onnx, of two stages, and images in two classes, one of which cannot be read."""
    path = tmp_path_factory.mktemp("shared")
    noise = np.random.default_rng(0)
    for index in range(IMAGES):
        file = path / "images" / "ab"[index % 2] / f"{index:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (32, 32, 3)).astype(np.uint8)).save(file)
    (path / "images" / "a" / "damaged.png").write_bytes(b"no image")
    done = program(path)("onnx", short, "--data", "images")
    assert done.returncode == 0, done.stderr
    return path


def same(one: Any, other: Any, where: str = "") -> None:
    """Counts, names and sentences alike; measured numbers up to what another batch rounds otherwise."""
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for place, (first, second) in enumerate(zip(one, other, strict=True)):
            same(first, second, f"{where}[{place}]")
    elif isinstance(one, float) and isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-6, abs=2e-6), where
    else:
        assert one == other, where


def test_two_processes_find_what_one_finds(folder: Path, short: Path) -> None:
    arguments = ("verify", "model.onnx", "--against", short, "--data", "images", "--samples", str(IMAGES + 1))
    alone = program(folder)(*arguments, "--json", "alone.json", "--junit", "alone.xml")
    assert alone.returncode == 0, alone.stdout + alone.stderr
    with started(folder, TORCHRUN, *arguments, "--json", "together.json", "--junit", "together.xml") as process:
        code, out, err = ended(process)
    assert code == 0, err
    assert out.count("PASSED") == 1
    one, two = (json.loads((folder / name).read_text()) for name in ("alone.json", "together.json"))
    same(one, two)
    assert two["samples"] == IMAGES
    assert two["images"]["read"] == IMAGES
    assert two["images"]["left_out"] == 1
    assert (folder / "together.xml").is_file()


@pytest.mark.slow
def test_more_processes_than_images(folder: Path, short: Path) -> None:
    arguments = ("verify", "model.onnx", "--against", short, "--data", "images", "--samples", "1")
    with started(folder, TORCHRUN, *arguments, "--json", "few.json") as process:
        code, _, err = ended(process)
    assert code == 0, err
    assert json.loads((folder / "few.json").read_text())["samples"] == 1


@pytest.mark.slow
def test_a_failure_fails_all(folder: Path, short: Path) -> None:
    arguments = ("verify", "model.onnx", "--against", short, "--data", "images", "--tolerance", "logits_max_abs=1e-30")
    with started(folder, TORCHRUN, *arguments) as process:
        code, out, _ = ended(process)
    assert code != 0
    assert out.count("FAILED") == 1


def test_an_error_of_one_process_is_raised_in_every_one(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Processes(0, 2)
    theirs = pickle.loads(pickle.dumps(InputError("It cannot be read.", "Look.", code="unreadable", path="x")))
    monkeypatch.setattr(Processes, "gathered", lambda self, value: [value, theirs])
    with pytest.raises(InputError, match="It cannot be read") as caught:
        processes.shared(lambda: 1)
    assert (caught.value.code, caught.value.details) == ("unreadable", {"path": "x"})
