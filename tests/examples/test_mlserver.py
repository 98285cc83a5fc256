"""MLServer, which shares no code with Triton, answers the same requests with the same classes (make mlserver)."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import tofe_export as tofe
from tests.helpers import SMALL_KEEP, save_small
from tests.packages.requests_v2 import answer_of, asked, became_ready, file_says, free_port, post

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / "build" / "mlserver"
STARTS = 120  # seconds
PIXELS: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (1, 50, 70, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example with a file in it."""
    if not (ENVIRONMENT / "bin" / "mlserver").is_file():
        pytest.skip("MLServer is not in build/mlserver: make mlserver")
    folder = tmp_path_factory.mktemp("mlserver") / "models"
    shutil.copytree(ROOT / "examples" / "serving" / "mlserver", folder)
    save_small(folder.parent / "ckpt.pth")
    served = {"input": "image", "outputs": "classes", "top": 3}
    tofe.export(folder.parent / "ckpt.pth", folder / "served.onnx", keep=SMALL_KEEP, **served)
    return folder


@pytest.fixture(scope="module", params=[0, 1], ids=["in the server's process", "in a worker"])
def server(folder: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Its addresses for HTTP and gRPC."""
    http, grpc, metrics = free_port(), free_port(), free_port()
    ports = {"HTTP_PORT": http, "GRPC_PORT": grpc, "METRICS_PORT": metrics, "HOST": "127.0.0.1"}
    ports["PARALLEL_WORKERS"] = request.param
    settings = {f"MLSERVER_{name}": str(value) for name, value in ports.items()}
    path = f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}"
    said = folder.parent / f"log-{request.param}.txt"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [ENVIRONMENT / "bin" / "mlserver", "start", folder],
            env={**os.environ, **settings, "PATH": path, "THREADS": "1"},
            cwd=folder,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        if not became_ready(f"http://127.0.0.1:{http}", lambda: process.poll() is None, STARTS):
            pytest.fail(f"MLServer does not start: {said.read_text()[-2000:]}")
        yield f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers
        process.wait()


def test_it_answers_as_the_file_does_and_refuses_in_words(server: tuple[str, str], folder: Path) -> None:
    http, _ = server
    status, reply = post(http, asked(PIXELS))
    assert status == 200
    assert answer_of(reply) == file_says(folder / "served.onnx", PIXELS)
    for body, words in (
        (asked(PIXELS[0]), "Invalid rank"),
        (asked(PIXELS[..., :2]), "invalid dimensions"),
        (asked(PIXELS, "FP32"), "Unexpected input data type"),
        (asked(PIXELS, name="images"), "missing from input feed"),
        (asked(PIXELS[:, :0]), "The request does not fit"),
        (asked(PIXELS).replace(b"[1, 50, 70, 3]", b"[1, 50, 71, 3]"), "The request does not fit"),
        (asked(PIXELS).replace(b'"data": [', b'"data": [300, '), "The request does not fit"),
        (asked(PIXELS[:, :1, :1].astype(np.int64) - 500), "The request does not fit"),
    ):
        status, reply = post(http, body)
        assert (status, words in reply["error"]) == (400, True), reply
    assert post(http, asked(PIXELS))[0] == 200, "it still answers"


def test_tritons_own_client_understands_it(server: tuple[str, str], folder: Path) -> None:
    module = pytest.importorskip("tritonclient.grpc", reason="tritonclient is in the extra dev")
    client = module.InferenceServerClient(server[1])
    tensor = module.InferInput("pixels", list(PIXELS.shape), "UINT8")
    tensor.set_data_from_numpy(PIXELS)
    reply = client.infer("tofe", [tensor])
    client.close()
    answer = reply.as_numpy("classes")[0].tolist(), reply.as_numpy("probabilities")[0].tolist()
    assert answer == file_says(folder / "served.onnx", PIXELS)
