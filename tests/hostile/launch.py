"""Starts one case: a fork of this process, which has loaded everything, or a process from scratch."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import io
import os
import pty
import resource
import signal
import struct
import sys
import tempfile
import termios
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import pytest

from tests.hostile.case import Case, Surroundings
from tests.hostile.nobody import become_nobody, give_away

ROOT = Path(__file__).resolve().parents[2]
_LOADED = (
    # Not the command line: its console looks at the environment when it is loaded.
    "matplotlib.figure",
    "onnxruntime",
    "onnxscript",
    "onnxscript.optimizer",
    "rich.progress",
    "rich.table",
    "sklearn.datasets",
    "timm",
    "torch._dynamo",
    "torch.onnx",
    "torch.utils.data",
    "typer",
    "tofe_export.engine.options",
    "tofe_export.page.build",
    "tofe_export.page.tuning_chart",
    "tofe_export.training.trainer",
    "tofe_export.api.bench",
    "tofe_export.api.build",
    "tofe_export.api.demo",
    "tofe_export.api.export",
    "tofe_export.api.inspect",
    "tofe_export.api.optimize",
    "tofe_export.api.quantize",
    "tofe_export.api.sensitivity",
    "tofe_export.api.tune",
    "tofe_export.api.verify",
)
_MEMORY = 12 << 30  # of addresses: PyTorch alone reserves some GiB


def load_everything() -> None:
    """Imports what verbs import, once, so that forks need not."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # timm imports it where it is installed; every fork would then try to remove one folder of it at exit.
    sys.modules["wandb"] = None  # type: ignore[assignment]
    for name in _LOADED:
        importlib.import_module(name)
    import torch

    from tests.helpers import small_tofe
    from tests.traces import read_operators_once
    from tofe_export.graph.export import export_tofe

    torch.set_num_threads(1)
    read_operators_once(pytest.MonkeyPatch())
    # An export imports 500 more modules and fills caches. It starts no threads, which a fork would not have.
    export_tofe(small_tofe(num_classes=2), (8, 5, 3), True, taps=False)
    gc.freeze()


@dataclass
class Running:
    """A case that was started.

    Attributes:
        process: its id, which is also its process group's.
        sandbox: its folder.
        started: time.monotonic().
    """

    case: Case
    process: int
    sandbox: Path
    started: float
    readers: list[tuple[int, str]] = field(default_factory=list)
    signalled: bool = False

    def text(self) -> str:
        """What it said: standard output, then standard error."""
        return "".join((self.sandbox / name).read_bytes().decode("utf-8", "backslashreplace") for name in _CAPTURED)

    def complaint(self) -> str:
        """Standard error alone."""
        return (self.sandbox / _CAPTURED[1]).read_bytes().decode("utf-8", "backslashreplace")

    def drain(self) -> None:
        """Reads what it wrote so far. Into no file of its own: a limit on the size of files must not stop its words."""
        for reader, name in self.readers:
            try:
                while found := os.read(reader, 65536):
                    with (self.sandbox / name).open("ab") as file:
                        file.write(found)
            except OSError:  # nothing there now, or a terminal whose other side is closed
                pass

    def close(self) -> None:
        """Reads no longer."""
        for reader, _ in self.readers:
            os.close(reader)


_CAPTURED = (".stdout", ".stderr")
BEGUN = ".begun"  # in the sandbox, once the program runs


def start(case: Case, sandbox: Path) -> Running:
    """Starts the case in `sandbox`/work; its home, TMPDIR and captured output lie beside it."""
    running = Running(case, 0, sandbox, time.monotonic())
    for name in _CAPTURED:
        (sandbox / name).touch()
    if case.real:
        run: Callable[[], object] = lambda: os.execve(sys.executable, _command(case), _environment(case, sandbox))  # noqa: E731
    else:
        run = lambda: _program(case, sandbox)  # noqa: E731
    streams = [_open(case.around, name, running) for name in ("stdin", "stdout", "stderr")]
    give_away(sandbox)
    running.process = os.fork()
    if running.process == 0:
        _child(case, sandbox, streams, run)
    for stream in streams:
        if stream is not None:
            os.close(stream)
    return running


def call(function: Callable[[], object]) -> int:
    """Calls a function in a fork; its exit code."""
    process = os.fork()
    if process == 0:
        try:
            function()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _command(case: Case) -> list[str | bytes]:
    return [sys.executable, "-m", "tofe_export", *case.arguments]


def _environment(case: Case, sandbox: Path) -> dict[str, str]:
    standard: dict[str, str | None] = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "plugins"))),
        "PYTHONDONTWRITEBYTECODE": "1",
        "HOME": str(sandbox / "home"),
        "TMPDIR": str(sandbox / "tmp"),
        "LANG": "C.UTF-8",
        "USER": "somebody",
        "OMP_NUM_THREADS": "1",
        "PYTHONFAULTHANDLER": None,
    }
    merged = standard | dict(case.around.environment)
    return {key: value for key, value in merged.items() if value is not None}


def _open(around: Surroundings, stream: str, running: Running) -> int | None:
    """A descriptor for the child, or None for one that is closed."""
    kind = getattr(around, stream)
    if kind == "closed":
        return None
    if kind == "full":
        return os.open("/dev/full", os.O_RDWR)
    if kind == "pipe":
        reader, writer = os.pipe()
        os.close(reader)
        return writer
    if kind in ("terminal", "gone"):
        mine, its = pty.openpty()
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", *around.size, 0, 0))
        if kind == "gone":
            os.close(mine)
        else:
            os.set_blocking(mine, False)
            running.readers.append((mine, _CAPTURED[1]))
        return its
    if stream == "stdin":
        return os.open("/dev/null", os.O_RDONLY)
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    running.readers.append((reader, f".{stream}"))
    return writer


def _child(case: Case, sandbox: Path, streams: list[int | None], run: Callable[[], object]) -> NoReturn:
    try:
        os.setsid()
        around = case.around
        os.umask(around.umask)
        work = sandbox / "work"
        os.chdir(work)
        if around.folder == "deleted":
            gone = sandbox / "work" / "gone"
            gone.mkdir()
            os.chdir(gone)
            gone.rmdir()
        for target, stream in enumerate(streams):
            if stream is not None:
                os.dup2(stream, target)
        os.closerange(3, 256)
        for target, stream in enumerate(streams):
            if stream is None:
                os.close(target)
        environment = _environment(case, sandbox)
        os.environ.clear()
        os.environ.update(environment)
        for limit, value in {resource.RLIMIT_AS: _MEMORY, resource.RLIMIT_CORE: 0, **around.limits}.items():
            resource.setrlimit(limit, (value, value))
        if around.spare is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + around.spare
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        become_nobody()  # a program that replaces /dev/null must not find that it may
        signal.signal(signal.SIGPIPE, signal.SIG_DFL if case.real else signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        run()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(99)


def _program(case: Case, sandbox: Path) -> NoReturn:
    """What the interpreter does around `tofe-export ARGUMENTS`, from standard streams to the last flush."""
    import torch

    # A fork makes PyTorch's pool of threads anew when it is first asked for: not by two threads at the same time.
    torch.set_num_threads(1)
    tempfile.tempdir = None
    _streams(os.environ)
    sys.argv = ["tofe-export", *(os.fsdecode(argument) for argument in case.arguments)]
    try:
        from tofe_export.cli.main import main

        (sandbox / BEGUN).touch()  # an interrupt before this would meet the instrument
        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
        if isinstance(error.code, str) and sys.stderr is not None:
            sys.stderr.write(error.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        code = 130
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(_flushed(code))


def _flushed(code: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError) as error:
            if stream is sys.stdout:
                code = 120
                with contextlib.suppress(OSError):
                    os.write(2, f"Exception ignored in: {stream!r}: {error!r}\n".encode())
    return code & 0xFF


def _streams(environment: Mapping[str, str]) -> None:
    """sys.stdin, stdout and stderr as the interpreter would open them."""
    encoding, _, errors = environment.get("PYTHONIOENCODING", "utf-8").partition(":")
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
            continue
        raw = io.FileIO(descriptor, "r" if name == "stdin" else "w", closefd=False)
        buffer = io.BufferedReader(raw) if name == "stdin" else io.BufferedWriter(raw)
        how = "backslashreplace" if name == "stderr" else errors or "strict"
        lines = name == "stderr" or os.isatty(descriptor)
        stream = io.TextIOWrapper(buffer, encoding or "utf-8", how, line_buffering=lines)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def stop(process: int) -> None:
    """Kills the process group of a case."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process, signal.SIGKILL)


def describe(case: Case) -> str:
    """The command line, for people."""
    import shlex

    return shlex.join(["tofe-export", *(os.fsdecode(part) for part in case.arguments)])


__all__ = ["BEGUN", "ROOT", "Running", "call", "describe", "load_everything", "start", "stop"]
