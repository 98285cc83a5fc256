"""The programs of examples/serving, started as a user starts them, beside `predict`."""

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tofe_export as tofe
from tests.helpers import SMALL_CLASSES, SMALL_KEEP, require_openvino, save_noise, save_small
from tests.packages.requests_v2 import slow_clients

EXAMPLES = Path(__file__).parents[2] / "examples" / "serving"
DEBIAN = Path(__file__).parents[2] / "build" / "onnxruntime-cpp"
TOP = 3
STARTS = 60  # seconds


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ckpt.pth, plain.onnx, served.onnx, and photo.png, an image of noise."""
    folder = tmp_path_factory.mktemp("serving")
    save_noise(folder / "photo.png", 50, 70)
    save_small(folder / "ckpt.pth")
    tofe.export(folder / "ckpt.pth", folder / "plain.onnx", keep=SMALL_KEEP)
    tofe.export(folder / "ckpt.pth", folder / "served.onnx", keep=SMALL_KEEP, input="image", outputs="classes", top=TOP)
    return folder


def expected(folder: Path) -> tuple[list[int], list[float]]:
    [prediction] = tofe.predict(folder / "plain.onnx", folder / "photo.png", top=TOP)
    return [one.index for one in prediction.classes], [one.probability for one in prediction.classes]


def test_python_needs_no_torch(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [sys.executable, EXAMPLES / "classify.py", folder / "served.onnx", folder / "photo.png"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=STARTS, check=False)
    assert done.returncode == 0, done.stderr
    indices, probabilities = expected(folder)
    assert [line.split("  ")[1:] for line in done.stdout.splitlines()] == [
        [SMALL_CLASSES[index], f"{probability:.1%}"] for index, probability in zip(indices, probabilities, strict=True)
    ]


@pytest.fixture(scope="module")
def service(folder: Path) -> Iterator[str]:
    """The address of service.py under uvicorn."""
    pytest.importorskip("fastapi", reason="FastAPI is in the extra dev")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "warning"]
    environment = {**os.environ, "MODEL": str(folder / "served.onnx")}
    process = subprocess.Popen([*command, "--app-dir", str(EXAMPLES)], env=environment)
    address = f"http://127.0.0.1:{port}"
    end = time.monotonic() + STARTS
    while process.poll() is None and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/ready", timeout=5).close()
            break
        except OSError:
            time.sleep(0.1)
    else:
        process.kill()
        pytest.fail("the service does not start")
    yield address
    process.terminate()
    process.wait(timeout=STARTS)


def post(address: str, body: bytes) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(f"{address}/classes", data=body, timeout=STARTS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def test_the_service_answers_as_predict_does(folder: Path, service: str) -> None:
    status, answer = post(service, (folder / "photo.png").read_bytes())
    assert status == 200
    indices, probabilities = expected(folder)
    classes = answer["classes"]
    assert isinstance(classes, list)
    assert [(one["index"], one["name"]) for one in classes] == [(index, SMALL_CLASSES[index]) for index in indices]
    np.testing.assert_allclose([one["probability"] for one in classes], probabilities, atol=1e-6)


def test_the_service_refuses_in_words(folder: Path, service: str) -> None:
    photo = (folder / "photo.png").read_bytes()
    for body in (b"", b"no image", photo[: len(photo) // 2]):
        status, answer = post(service, body)
        assert status == 415
        assert "not a JPEG, PNG or WebP image" in str(answer["detail"])
    status, answer = post(service, b"\0" * 20_000_001)
    assert status == 413
    assert "20,000,000 bytes" in str(answer["detail"])
    large = io.BytesIO()
    Image.new("1", (8000, 8000)).save(large, "PNG")
    status, answer = post(service, large.getvalue())
    assert status == 413
    assert "40,000,000 pixels" in str(answer["detail"])
    thin = io.BytesIO()
    Image.new("1", (60_000, 2)).save(thin, "PNG")
    status, answer = post(service, thin.getvalue())
    assert status == 413
    assert "more than 200 times" in str(answer["detail"])
    assert post(service, photo)[0] == 200, "it still answers"


def test_the_service_answers_many_at_once_beside_slow_ones(folder: Path, service: str) -> None:
    photo = (folder / "photo.png").read_bytes()
    wanted = post(service, photo)
    with slow_clients(service, "/classes", 64), ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda _: post(service, photo), range(64)))
    assert answers == [wanted] * 64, "to the last digit"


def built(folder: Path, *options: str) -> Path:
    """The programs of cpp/."""
    if not (shutil.which("cmake") and shutil.which("g++")):
        pytest.skip("CMake and a C++ compiler are not installed")
    for command in (
        ["cmake", "-S", EXAMPLES / "cpp", "-B", folder / "build", *options],
        ["cmake", "--build", folder / "build"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build"


def check_program(program: list[str | Path], model: Path, folder: Path, work: Path) -> None:
    """It says what `predict` says, and refuses half an image."""
    with Image.open(folder / "photo.png") as image:
        image.save(work / "photo.ppm")
    done = subprocess.run([*program, model, work / "photo.ppm"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    indices, probabilities = expected(folder)
    assert [int(index) for index, _ in answers] == indices
    np.testing.assert_allclose([float(one) for _, one in answers], probabilities, atol=1e-3)
    (work / "not.ppm").write_bytes(b"P6 3 3 255\n")
    done = subprocess.run([*program, model, work / "not.ppm"], capture_output=True, text=True, check=False)
    assert (done.returncode, "ends too early" in done.stderr) == (1, True)


@pytest.mark.slow
def test_cpp_with_openvino(folder: Path, tmp_path: Path) -> None:
    openvino = require_openvino()
    from openvino.utils import get_cmake_path

    assert openvino
    tofe.optimize(
        folder / "plain.onnx", tmp_path / "served.onnx", target="openvino", input="image", classes=TOP, data="photos"
    )
    programs = built(tmp_path, f"-DOpenVINO_DIR={get_cmake_path()}")
    check_program([programs / "classify_openvino"], tmp_path / "served.onnx", folder, tmp_path)


@pytest.mark.slow
def test_cpp_with_onnxruntime(folder: Path, tmp_path: Path) -> None:
    """Debian 13's library, which reads the inlined file alone, run by Debian 13's own loader."""
    if not DEBIAN.is_dir():
        pytest.skip("ONNX Runtime's C++ library is not in build/onnxruntime-cpp: make onnxruntime-cpp")
    libraries = DEBIAN / "usr" / "lib" / "x86_64-linux-gnu"
    programs = built(
        tmp_path,
        f"-DONNXRUNTIME_INCLUDE={DEBIAN / 'usr' / 'include' / 'onnxruntime'}",
        f"-DONNXRUNTIME_LIBRARY={libraries / 'libonnxruntime.so'}",
        "-DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined",  # it needs a newer libc than this system may have
    )
    served = {"input": "image", "outputs": "classes", "top": TOP}
    tofe.export(folder / "ckpt.pth", tmp_path / "served.onnx", keep=SMALL_KEEP, inline=True, **served)
    loader: list[str | Path] = [DEBIAN / "lib64" / "ld-linux-x86-64.so.2", "--library-path", libraries]
    check_program([*loader, programs / "classify_onnxruntime"], tmp_path / "served.onnx", folder, tmp_path)
