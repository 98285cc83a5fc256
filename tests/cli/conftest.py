"""A small checkpoint trained on nothing, and the program as its user starts it."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli import forked
from tests.helpers import TWO_STAGES, small_tofe
from tofe_export.checkpoints.checkpoint import Checkpoint, save
from tofe_export.data.preprocessing import Preprocessing

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_tofe()
    path = tmp_path_factory.mktemp("cli") / "ckpt.pth"
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    return path


@pytest.fixture(scope="session")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with two blocks and stages, which is exported in less than half of the time."""
    model = small_tofe(**TWO_STAGES)
    path = tmp_path_factory.mktemp("cli") / "short.pth"
    save(path, Checkpoint(model, (0.5, 0.3), Preprocessing.of_backbone(model.vit), {}, "digits"))
    return path


@pytest.fixture(scope="session")
def discarding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_tofe(approximator="discard")
    path = tmp_path_factory.mktemp("cli") / "discard.pth"
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    return path


def program(folder: Path) -> Run:
    """tofe-export started in `folder`."""

    def start(*arguments: object, stdout: str = "", **environment: str) -> "subprocess.CompletedProcess[str]":
        return forked.start([*map(str, arguments)], folder, {"TOFE_DEBUG": "", **environment}, stdout)

    return start


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """tofe-export in an empty folder; standard output, standard error and exit code as the user sees them."""
    return program(tmp_path)


@pytest.fixture(scope="session")
def exported_once(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `tofe-export onnx` writes, made once."""
    folder = tmp_path_factory.mktemp("exported")
    done = program(folder)("onnx", checkpoint)
    assert done.returncode == 0, done.stderr
    assert "parity" in done.stdout
    return folder


@pytest.fixture
def exported(exported_once: Path, tmp_path: Path) -> Path:
    """model.onnx with its manifest where the user stands; the test's own."""
    for name in ("model.onnx", "model.onnx.json"):
        shutil.copy(exported_once / name, tmp_path / name)
    return tmp_path / "model.onnx"
