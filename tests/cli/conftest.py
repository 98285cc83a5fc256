"""A small checkpoint trained on nothing, and the program as its user starts it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.helpers import small_tofe
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
def discarding(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = small_tofe(approximator="discard")
    path = tmp_path_factory.mktemp("cli") / "discard.pth"
    save(path, Checkpoint(model, (0.5, 0.3, 0.2), Preprocessing.of_backbone(model.vit), {}, "digits"))
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """tofe-export in an empty folder; standard output, standard error and exit code as the user sees them."""

    def start(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [sys.executable, "-m", "tofe_export", *map(str, arguments)],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
            env={**os.environ, "TOFE_DEBUG": "", **environment},
        )

    return start
