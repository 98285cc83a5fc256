"""A run that has ended, for the tests that look at what it left or start another from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.runs import OPTIONS, RECIPE
from tofe_export.training import trainer


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trainer.train(RECIPE, OPTIONS, folder)
    return folder
