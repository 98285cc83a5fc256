"""Settings for every test: one thread each, since two workers share two processors; shapes and types are checked."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import jaxtyping
import pytest
import torch

# Where signatures give shapes, they are checked at each call. Must come before the package's first import.
jaxtyping.install_import_hook(["tofe_export.model", "tofe_export.training.losses"], "beartype.beartype")

torch.set_num_threads(1)
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--examples 2000`: a longer run of tests/chain, with new configurations each time."""
    parser.addoption("--examples", type=int, default=None, help="random configurations in tests/chain; default: 200")
