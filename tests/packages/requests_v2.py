"""Requests of the V2 protocol (Open Inference Protocol) over HTTP, and their answers."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tofe_export.runners.onnxruntime_runner import import_onnxruntime

Answer = tuple[list[int], list[float]]
"""Classes and their probabilities, the most probable first."""


def post(address: str, body: bytes) -> tuple[int, dict[str, Any]]:
    """Status and answer of the model `tofe` at `address`."""
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{address}/v2/models/tofe/infer", data=body, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def asked(given: NDArray[np.uint8], kind: str = "UINT8", name: str = "pixels") -> bytes:
    """The body of a request with one tensor."""
    tensor = {"name": name, "datatype": kind, "shape": list(given.shape), "data": given.ravel().tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def answer_of(reply: dict[str, Any]) -> Answer:
    """What a file that names classes said of one image."""
    values = {one["name"]: one["data"] for one in reply["outputs"]}
    return values["classes"], [float(np.float32(value)) for value in values["probabilities"]]


def file_says(model: Path, given: NDArray[np.uint8]) -> Answer:
    """The file by itself."""
    classes, probabilities = import_onnxruntime().InferenceSession(model).run(None, {"pixels": given})
    return classes[0].tolist(), probabilities[0].tolist()


@contextlib.contextmanager
def slow_clients(address: str, path: str, number: int) -> Iterator[list[socket.socket]]:
    """Connections that promised a body of a megabyte, sent its first bytes, and wait."""
    host, port = address.removeprefix("http://").split(":")
    promised = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n"
    )
    with contextlib.ExitStack() as open_ones:
        waiting = [open_ones.enter_context(socket.create_connection((host, int(port)), 60)) for _ in range(number)]
        for one in waiting:
            one.sendall(promised.encode() + b'{"inputs": [')
        yield waiting


def became_ready(address: str, runs: Callable[[], bool], seconds: float) -> bool:
    """Waits until the server says that it takes requests; False where it ended, or the time."""
    end = time.monotonic() + seconds
    while runs() and time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{address}/v2/health/ready", timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
