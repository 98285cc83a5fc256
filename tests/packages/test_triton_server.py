"""A repository in a real Triton: answers, what is refused, a new version while it serves, and a kill."""

from __future__ import annotations

import threading
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import tofe_export as tofe
from tests.helpers import SMALL_KEEP, save_noise, save_small
from tests.packages.requests_v2 import Answer, answer_of, asked, file_says, post, slow_clients
from tests.packages.triton_server import binaries, serving
from tofe_export.packages.triton import TritonSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return binaries(tmp_path_factory.mktemp("server"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """old.onnx and new.onnx, which answer differently, and photo.png."""
    folder = tmp_path_factory.mktemp("models")
    for name, seed in (("old", 0), ("new", 3)):
        save_small(folder / f"{name}.pth", seed)
        served = {"input": "image", "outputs": "classes", "top": 3}
        tofe.export(folder / f"{name}.pth", folder / f"{name}.onnx", keep=SMALL_KEEP, **served)
    save_noise(folder / "photo.png", 50, 70)
    return folder


def pixels(folder: Path) -> NDArray[np.uint8]:
    with Image.open(folder / "photo.png") as image:
        return np.array(image)[None]


def repository(folder: Path, path: Path, name: str = "old", **settings: int) -> Path:
    threads = TritonSettings(threads=1, **settings)
    tofe.package(folder / f"{name}.onnx", path, name="tofe", python=True, settings=threads)
    return path


def test_it_answers_as_the_file_does_and_refuses_in_words(server: Path, folder: Path, tmp_path: Path) -> None:
    given = pixels(folder)
    with serving(server, repository(folder, tmp_path / "models")) as running:
        status, reply = post(running.http, asked(given))
        assert status == 200
        assert answer_of(reply) == file_says(folder / "old.onnx", given)
        for body, expected, words in (
            (b"no request", 500, "failed to parse"),  # Triton's own status for it
            (asked(given[0]), 400, "batch-size must be <= 8"),
            (asked(given[..., :2]), 400, "shape"),
            (asked(given, "FP32"), 400, "data-type"),
            (asked(given, name="images"), 400, "images"),
        ):
            status, reply = post(running.http, body)
            assert (status, words in reply["error"]) == (expected, True), reply
        assert post(running.http, asked(given))[0] == 200, "it still answers"


def test_slow_clients_and_huge_bodies_do_not_keep_others_waiting(server: Path, folder: Path, tmp_path: Path) -> None:
    given = pixels(folder)
    wanted = file_says(folder / "old.onnx", given)
    with (
        serving(server, repository(folder, tmp_path / "models")) as running,
        slow_clients(running.http, "/v2/models/tofe/infer", 64),
    ):
        with ThreadPoolExecutor(1) as beside:
            refused = beside.submit(refuses_much, running.http)
            assert [answer_of(post(running.http, asked(given))[1]) for _ in range(8)] == [wanted] * 8
            assert refused.result(timeout=120)
        assert answer_of(post(running.http, asked(given))[1]) == wanted, "it still answers"


def refuses_much(address: str) -> bool:
    """200 MB: no answer may accept them; a server may also close the connection before it has all of them."""
    try:
        return 400 <= post(address, b"\0" * 200_000_000)[0] < 600
    except urllib.error.URLError as error:
        return isinstance(error.reason, ConnectionError)
    except ConnectionError:
        return True


def test_grpc_and_batches(server: Path, folder: Path, tmp_path: Path) -> None:
    client_module = pytest.importorskip("tritonclient.grpc", reason="tritonclient is in the extra dev")
    noise = np.random.default_rng(1).integers(0, 256, (12, 40, 60, 3)).astype(np.uint8)
    with serving(server, repository(folder, tmp_path / "models", delay_us=200_000)) as running:
        client = client_module.InferenceServerClient(running.grpc)
        found: dict[int, Any] = {}

        def ask(index: int) -> None:
            tensor = client_module.InferInput("pixels", [1, 40, 60, 3], "UINT8")
            tensor.set_data_from_numpy(noise[index : index + 1])
            found[index] = client.infer("tofe", [tensor])

        before = client.get_inference_statistics("tofe").model_stats[0]  # of the warm-up
        threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(noise))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        statistics = client.get_inference_statistics("tofe").model_stats[0]
        client.close()
    assert statistics.inference_count - before.inference_count == len(noise)
    assert statistics.execution_count - before.execution_count < len(noise), "requests were put together"
    for index, reply in found.items():
        classes, probabilities = file_says(folder / "old.onnx", noise[index : index + 1])
        assert reply.as_numpy("classes")[0].tolist() == classes
        np.testing.assert_allclose(reply.as_numpy("probabilities")[0], probabilities, atol=1e-6)


def test_a_new_version_while_it_serves(server: Path, folder: Path, tmp_path: Path) -> None:
    given = pixels(folder)
    old, new = file_says(folder / "old.onnx", given), file_says(folder / "new.onnx", given)
    assert old != new
    models = repository(folder, tmp_path / "models")
    with serving(server, models, "--model-control-mode", "poll", "--repository-poll-secs", "1") as running:
        answers: list[Answer] = []
        refused: list[Any] = []
        end = time.monotonic() + 60
        while time.monotonic() < end and new not in answers:
            status, reply = post(running.http, asked(given))
            if status == 200:
                answers.append(answer_of(reply))
            else:
                refused.append(reply)
            if len(answers) == 20:
                repository(folder, models, "new")
    assert not refused
    assert answers.count(old) >= 20
    assert all(answer in (old, new) for answer in answers), "never a mixture"
    assert answers[-1] == new
    assert answers.index(new) == answers.count(old), "the old one is not heard again"


def test_after_a_kill_it_answers_again(server: Path, folder: Path, tmp_path: Path) -> None:
    given, models = pixels(folder), repository(folder, tmp_path / "models")
    with serving(server, models) as running:
        before = answer_of(post(running.http, asked(given))[1])
        running.kill()
        with pytest.raises(OSError, match=r"refused|reset"):
            post(running.http, asked(given))
    with serving(server, models) as running:
        assert answer_of(post(running.http, asked(given))[1]) == before
