"""Settings for every test: one thread each, since two workers share two processors; shapes and types are checked."""

import gc
import os
import signal
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # some tests import it before the package, which sees to it

import hypothesis
import jaxtyping
import pytest
import torch

# Where signatures give shapes, they are checked at each call. Must come before the package's first import.
jaxtyping.install_import_hook(["tofe_export.model", "tofe_export.training.losses"], "beartype.beartype")

# A shell ignores it for what it starts in the background, and programs that tests interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

torch.set_num_threads(1)
hypothesis.settings.register_profile("default", deadline=None, derandomize=True)
hypothesis.settings.load_profile("default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--examples 2000`: a longer run of tests/chain, with new configurations each time; `--kills 100`: tests/kills."""
    parser.addoption(
        "--examples", type=int, default=None, help="random configurations in tests/chain, in place of the same few"
    )
    parser.addoption("--kills", type=int, default=3, help="how often each verb is killed in tests/kills")


@pytest.fixture(scope="session", autouse=True)
def _faster_exports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    from tests.traces import FOLDER, export_faster

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "traces"  # workers share it
    folder.mkdir(exist_ok=True)
    thresholds = gc.get_threshold()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(folder))
        export_faster(folder, patch)
        yield
    gc.set_threshold(*thresholds)
