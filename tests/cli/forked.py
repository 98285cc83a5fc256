"""Starts the program in a process of its own that need not import PyTorch again: forked off one that has."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import BinaryIO

_LOADED = [
    "onnxscript",
    "onnxruntime",
    "tofe_export.cli.app",
    "tofe_export.api.bench",
    "tofe_export.api.demo",
    "tofe_export.api.inspect",
    "tofe_export.api.quantize",
    "tofe_export.api.sensitivity",
    "tofe_export.api.verify",
    "tests.cli.preloaded",
]


CLOSED, CLOSED_PIPE = "closed", "closed pipe"


def start(
    arguments: list[str], folder: Path, environment: dict[str, str], stdout: str = ""
) -> subprocess.CompletedProcess[str]:
    """`tofe-export ARGUMENTS` in `folder`: what it says, as the user sees it, and its exit code.

    `environment` is changed before the program begins, not before its libraries are loaded. `stdout` is a file to open
    in place of standard output, or CLOSED, or CLOSED_PIPE (a reader that went away).
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = begin(arguments, folder, environment, stdout or _sent(out), _sent(err))
        process.join()
        said, complained = (_text(file) for file in (out, err))
    assert process.exitcode is not None
    return subprocess.CompletedProcess(arguments, process.exitcode, said, complained)


def begin(arguments: list[str], folder: Path, environment: dict[str, str], stdout: str, stderr: str) -> BaseProcess:
    """The same, not waited for: its streams are files to open, or CLOSED, or CLOSED_PIPE."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_LOADED)  # taken by the first process that is started, which takes longer
    process = context.Process(target=_program, args=(arguments, str(folder), environment, stdout, stderr))
    process.start()
    return process


def _sent(file: BinaryIO) -> str:
    """A name under which another process can open a file that has none."""
    return f"/proc/{os.getpid()}/fd/{file.fileno()}"


def _program(arguments: list[str], folder: str, environment: dict[str, str], out: str, err: str) -> None:
    _redirect(err, 2)
    _redirect(out, 1)
    os.chdir(folder)
    os.environ.update(environment)
    if encoding := environment.get("PYTHONIOENCODING"):  # which Python reads when it starts
        sys.stdout.reconfigure(encoding=encoding, errors="strict")  # type: ignore[union-attr]
    sys.argv = ["tofe-export", *arguments]
    from tofe_export.cli.main import main

    main()


def _redirect(path: str, stream: int) -> None:
    if path == CLOSED:
        os.close(stream)
        sys.stdout = sys.__stdout__ = None  # type: ignore[assignment]
        return
    if path == CLOSED_PIPE:
        read, descriptor = os.pipe()
        os.close(read)
    else:
        descriptor = os.open(path, os.O_WRONLY)
    os.dup2(descriptor, stream)
    os.close(descriptor)


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode()
