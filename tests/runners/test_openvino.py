"""OpenVINO says what ONNX Runtime says, in the precision that was asked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import TWO_KEEP, exported_tofe, refused_as, require_openvino, small_images
from tofe_export.errors import MissingError
from tofe_export.graph.passes.inline import inline_operators
from tofe_export.graph.passes.taps import show_taps
from tofe_export.graph.stored import serialize
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.runners.openvino_runner import OpenVinoRunner, has_bf16

require_openvino()
IMAGES = small_images(3).numpy()


@pytest.fixture(scope="module")
def content() -> bytes:
    """A graph without functions, its stages in view."""
    model = exported_tofe(short=True)
    inline_operators(model)
    show_taps(model)
    whole = serialize(model)
    assert isinstance(whole, bytes)
    return whole


def test_every_output_has_its_name_and_its_values(content: bytes) -> None:
    ours, theirs = OpenVinoRunner(content, 1).run(IMAGES), OnnxRuntimeRunner(content, 1).run(IMAGES)
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        np.testing.assert_allclose(ours[name], value, rtol=0, atol=1e-5 * float(np.abs(value).max()), err_msg=name)
    assert np.array_equal(ours["stage0.perm"], theirs["stage0.perm"])
    assert ours["stage0.perm"].shape == (3, 16)
    assert TWO_KEEP[0] < 16


def test_results_of_one_batch_outlive_the_next(content: bytes) -> None:
    runner = OpenVinoRunner(content, 1)
    first = runner.run(IMAGES)
    before = first["logits"].copy()
    runner.run(-IMAGES)
    assert np.array_equal(first["logits"], before)


def test_a_bound_batch_gives_the_same(content: bytes) -> None:
    runner = OpenVinoRunner(content, 1)
    bound = runner.bind(IMAGES[:1])()
    assert isinstance(bound, dict)
    np.testing.assert_allclose(bound["logits"], runner.run(IMAGES[:1])["logits"], rtol=0, atol=1e-5)


def test_images_of_another_size_are_refused(content: bytes) -> None:
    runner = OpenVinoRunner(content, 1)
    for images in (small_images(1, size=40).numpy(), IMAGES[0]):
        with refused_as("images-shape"):
            runner.run(images)


def test_functions_are_not_read() -> None:
    portable = serialize(exported_tofe(short=True))
    assert isinstance(portable, bytes)
    with refused_as("openvino-refuses"):
        OpenVinoRunner(portable)


def test_what_is_no_model_of_images_is_refused(content: bytes) -> None:
    for damaged in (b"", b"hello", content[: len(content) // 2]):
        with refused_as("openvino-refuses"):
            OpenVinoRunner(damaged, 1)


def test_a_file_with_any_name_is_read(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "ö\udcff.onnx"
    file.write_bytes(content)
    assert OpenVinoRunner(file, 1).run(IMAGES)["logits"].shape == (3, 5)


def test_bf16_computes_in_bf16_or_is_refused(content: bytes) -> None:
    if not has_bf16():
        with refused_as("no-bf16", MissingError):
            OpenVinoRunner(content, arithmetic="bf16")
        return
    exact, rounded = (OpenVinoRunner(content, arithmetic=name).run(IMAGES)["logits"] for name in ("fp32", "bf16"))
    difference = float(np.abs(exact - rounded).max() / np.abs(exact).max())
    assert 1e-4 < difference < 0.1


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with refused_as("openvino-missing", MissingError):
        OpenVinoRunner(b"")


def test_it_reports_to_nobody_and_leaves_nothing_in_the_home(tmp_path: Path) -> None:
    code = "from tofe_export.runners.openvino_runner import has_bf16; has_bf16(); import sys; print(*sys.modules)"
    environment = {**os.environ, "HOME": str(tmp_path), "CI": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "openvino_telemetry" not in done.stdout.split()
    assert not list(tmp_path.iterdir())


SIGNALLED = """
import os, signal
from pathlib import Path
from tofe_export.runners.openvino_runner import OpenVinoRunner
first, second = (OpenVinoRunner(Path("model.onnx"), 1) for _ in range(2))
del first
del second
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_is_handled_after_two_models_were_closed(content: bytes, tmp_path: Path) -> None:
    """Two cores of OpenVINO leave a process whose next signal handler has no stack."""
    (tmp_path / "model.onnx").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", SIGNALLED], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
