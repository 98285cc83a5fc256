"""Workers: fresh processes that open files, say how far they are, fail in words and leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.helpers import exported_tofe, refused_as
from tofe_export.errors import CheckFailedError, InputError, MissingError
from tofe_export.timing import processes
from tofe_export.timing.jobs import Failure, Job
from tofe_export.timing.processes import time_in_processes
from tofe_export.timing.products import onnx_products, torch_products
from tofe_export.timing.subjects import CheckpointFile, EngineFile, OnnxFile

SHAPE = (3, 32, 32)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> OnnxFile:
    path = tmp_path_factory.mktemp("model") / "model\udcff.onnx"  # a name that is not UTF-8
    path.write_bytes(ir.to_proto(exported_tofe(short=True)).SerializeToString())
    return OnnxFile(path=path, threads=1)


def test_what_was_measured(model: OnnxFile, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    subjects = [model, *onnx_products(tmp_path, 1, "fp32", "cpu")[1:], model]
    measured = time_in_processes(subjects, SHAPE, (1, 3), 2, 2, progress=lambda *said: told.append(said), task="x")
    assert len(measured.processes) == 2
    assert all(name == "x" and total == 2 * (2 + 2 * 2) for name, _, total in told)
    assert [done for _, done, _ in told] == [*range(7), *range(6, 13)]
    for place in (0, 3):
        for batch in (1, 3):
            for timings in measured.of(place, batch):
                assert len(timings.rounds_ms) == 2
                assert all(len(block) >= 5 and min(block) > 0 for block in timings.rounds_ms)
    assert all((measured.of(place)[0].calls_ms > 0).all() for place in (1, 2))
    assert set(measured.processes[0]) == {(0, 1), (0, 3), (3, 1), (3, 3), (1, 0), (2, 0)}


def test_a_subject_survives_json(model: OnnxFile) -> None:
    subjects = (
        model,
        CheckpointFile(path=Path("c"), threads=2, keep=(3, 2), dense=True),
        EngineFile(path=Path("e"), backend="rtx", precision="fp16"),
        *torch_products(2),
    )
    job = Job(subjects=subjects, image_shape=SHAPE, batches=(1,), rounds=1, seed=(0, 1))
    assert Job.model_validate(json.loads(json.dumps(job.to_dict()))) == job


@pytest.mark.parametrize(
    "error",
    [
        InputError("No.", "Do.", code="some-code", path=Path("a b"), number=3),
        CheckFailedError("No.", "Do.", code="c"),
        MissingError("No.", "Do."),
        MemoryError("no memory"),
        RuntimeError("can't start new thread"),
        ModuleNotFoundError("No module named 'x'", name="x"),
        FileNotFoundError(2, "No such file", "a b"),
        OSError(28, "No space left on device"),
    ],
)
def test_an_error_is_the_same_on_the_other_side(error: Exception) -> None:
    failure = Failure.model_validate(json.loads(json.dumps(Failure.of(error).to_dict())))
    again = failure.error()
    assert type(again) is type(error)
    assert str(again) == str(error)
    for name in ("code", "message", "next_step", "errno", "filename", "name"):
        assert getattr(again, name, None) == getattr(error, name, None)
    if isinstance(error, InputError):
        assert isinstance(again, InputError)
        assert again.details == {"path": "a b", "number": 3}


def test_an_error_of_a_library_says_whose_it_was() -> None:
    class Odd(Exception):  # noqa: N818
        pass

    again = Failure.of(Odd("so")).error()
    assert (type(again), str(again)) == (RuntimeError, "Odd: so")
    assert "Odd: so" in again.__notes__[0]


def test_what_a_worker_refuses(model: OnnxFile, tmp_path: Path) -> None:
    (tmp_path / "no.onnx").write_bytes(b"no model")
    with refused_as("onnxruntime-refuses", path=str(tmp_path / "no.onnx")):
        time_in_processes([model, model.replaced(path=tmp_path / "no.onnx")], SHAPE, (1,), 1, 1)
    with refused_as("images-shape"):
        time_in_processes([model], (3, 16, 16), (1,), 1, 1)


def test_a_worker_that_is_killed_or_broken(model: OnnxFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(processes, "_WORKER", "odd_worker")
    (tmp_path / "odd_worker.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    with refused_as("worker-killed", MissingError):
        time_in_processes([model], SHAPE, (1,), 1, 1)
    (tmp_path / "odd_worker.py").write_text("import sys; sys.exit('broken')")
    with pytest.raises(RuntimeError, match="ended with 1: broken"):
        time_in_processes([model], SHAPE, (1,), 1, 1)


def test_no_worker_outlives_an_error_in_the_parent(model: OnnxFile, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(real(*arguments, **options))
        return started[-1]

    def stop(task: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(KeyboardInterrupt):
        time_in_processes([model], SHAPE, (1,), 100_000, 1, progress=stop)
    (process,) = started
    assert process.returncode == -signal.SIGKILL


def test_a_worker_ends_when_nobody_listens_and_imports_little(model: OnnxFile) -> None:
    job = Job(subjects=(model,), image_shape=SHAPE, batches=(1,), rounds=100_000, seed=(0, 0))
    code = (
        "import sys; from tofe_export.timing.worker import main\n"
        "try: main()\n"
        "finally: print(sorted({'torch', 'timm', 'onnx_ir', 'scipy'} & {*sys.modules}), file=sys.stderr)"
    )
    pipe = subprocess.PIPE
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, env=environment
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        assert worker.stderr is not None
        worker.stdin.write(json.dumps(job.to_dict()).encode())
        worker.stdin.close()
        assert json.loads(worker.stdout.readline()) == {"timed": None, "failure": None}
        worker.send_signal(signal.SIGINT)  # is its parent's business
        time.sleep(0.05)
        assert worker.poll() is None
        worker.stdout.close()
        assert "[]" in worker.stderr.read().decode().splitlines()


def test_a_product_is_what_it_says(tmp_path: Path) -> None:
    nothing = np.zeros((1, *SHAPE), np.float32)
    for precision in ("fp32", "int8"):
        products = onnx_products(tmp_path, 1, precision, "cpu")
        assert len(products) == 3
        for product in products:
            (value,) = product.open().run(nothing).values()
            # Of ones: each value is the number of terms, so that their sum is the number of multiplications.
            assert value.sum(dtype=np.float64) == product.macs
    for product in torch_products(1):
        (value,) = product.open().run(nothing).values()
        assert value.sum(dtype=np.float64) == product.macs
    assert onnx_products(tmp_path, 1, "fp16", "cpu") == []
