"""A run of a tiny network on the digits through the command line, and how to end it before it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.source import PACKAGE

PROGRAM = (sys.executable, "-m", "tofe_export")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "tofe_export")
NETWORK = "img_size=16,patch_size=4,embed_dim=16,depth=4,num_heads=2"
_LIMIT_S = 240


def train(steps: int, *more: object) -> tuple[str, ...]:
    """The arguments of a run in `run`: two epochs of `steps` steps each."""
    shape = ("--backbone-args", NETWORK, "--batch-size", "8", "--device", "cpu", "--set", "run.limit_val=20")
    length = ("--epochs", "1", "--dense-epochs", "1", "--set", f"run.limit_batches={steps}")
    return ("train", "--data", "digits", "-o", "run", *shape, *length, *map(str, more))


@contextlib.contextmanager
def started(folder: Path, launcher: tuple[str, ...], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The program in a session of its own, as in a terminal: a signal to its group reaches all of its processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOFE_DEBUG": "", "PYTHONPATH": str(PACKAGE.parent)}
    process = subprocess.Popen(
        [*launcher, *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Its exit code, standard output and standard error, when it has ended."""
    out, err = process.communicate(timeout=_LIMIT_S)
    of_torchrun = "torch.distributed.run" in process.args  # it shows where it was itself when a process failed
    assert f'File "{PACKAGE}' not in out + err, err
    assert of_torchrun or "Traceback" not in out + err, err
    return process.returncode, out, err


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Until the run has made it. metrics.jsonl comes with the first step."""
    until = time.monotonic() + _LIMIT_S
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.005)


def wait_for_child(process: subprocess.Popen[str]) -> None:
    """Until it has forked one that decodes images, as it does for its first step; libraries start other programs."""
    until, before = time.monotonic() + _LIMIT_S, set[str]()
    # Another program has the command of this one too for a moment, until it is loaded.
    while not before & (now := {one for one in children(process) if _command_of(one) == _command_of(str(process.pid))}):
        before = now
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def children(process: subprocess.Popen[str]) -> list[str]:
    """The numbers of the processes that it started."""
    return Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()


def _command_of(process: str) -> bytes:
    with contextlib.suppress(OSError):  # it has ended meanwhile
        return Path(f"/proc/{process}/cmdline").read_bytes()
    return b""
