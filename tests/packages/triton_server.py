"""A real Triton Inference Server on this machine, from the wheel of nvidia-pytriton (make triton)."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.packages.requests_v2 import became_ready, free_port

ENVIRONMENT = Path(__file__).parents[2] / "build" / "triton"
_STARTS = 120  # seconds


@dataclass
class Server:
    """A server that runs."""

    process: subprocess.Popen[bytes]
    http: str
    grpc: str

    def kill(self) -> None:
        """As the system does where memory is short: with all of its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def binaries(folder: Path) -> Path:
    """The server's files in `folder`, with the stub that Python models run in; skips where there are none."""
    found = sorted(ENVIRONMENT.glob("lib/python3.*/site-packages/pytriton/tritonserver"))
    if not found:
        pytest.skip("Triton is not in build/triton: make triton")
    version = found[0].parents[2].name.removeprefix("python")
    target = folder / "tritonserver"
    shutil.copytree(found[0], target)
    stub = target / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy(stub, target / "backends" / "python")
    return target


@contextlib.contextmanager
def serving(server: Path, repository: Path, *options: str) -> Iterator[Server]:
    """Triton with a repository, on ports of its own."""
    ports = [free_port() for _ in range(3)]
    packages = next(ENVIRONMENT.glob("lib/python3.*/site-packages"))
    environment = {
        **os.environ,
        "PATH": f"{ENVIRONMENT / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(ENVIRONMENT),
        "PYTHONPATH": str(packages),
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
    }
    names = ("--http-port", "--grpc-port", "--metrics-port")
    process = subprocess.Popen(
        [
            *(server / "bin" / "tritonserver", "--model-repository", repository),
            *("--backend-directory", server / "backends", "--http-address", "127.0.0.1", *options),
            *(text for name, port in zip(names, ports, strict=True) for text in (name, str(port))),
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    started = Server(process, f"http://127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}")
    try:
        if not became_ready(started.http, lambda: process.poll() is None, _STARTS):
            pytest.fail("Triton does not start")
        yield started
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
