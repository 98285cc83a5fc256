"""Everything here needs an NVIDIA GPU, and says so where there is none."""

import pytest
import torch

from tests.cli.conftest import checkpoint, run

__all__ = ["checkpoint", "run"]


@pytest.fixture(autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no NVIDIA GPU that PyTorch can use")
