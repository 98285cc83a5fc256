"""CUDA C++ to PTX by NVRTC: no driver, no GPU, no compiler on the machine.

The PTX goes into the engine, and the driver of the machine that runs it compiles it for its own GPU. NVRTC writes the
newest PTX version it knows, which older drivers refuse; the kernels use nothing newer than PTX 7.0 (CUDA 11.0, the
first with sm_80), so the header says that.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import Any

from tofe_plugins.kernels import SOURCES, Kernel

ARCHITECTURE = "compute_80"
PTX_VERSION = "7.0"
OPTIONS = (f"--gpu-architecture={ARCHITECTURE}", "--std=c++17")


class CompilerError(RuntimeError):
    """NVRTC is missing, or refuses a source."""


@functools.cache
def ptx(kernel: Kernel) -> bytes:
    """The kernel's PTX, from the cache when these very sources were compiled before.

    Raises:
        CompilerError: NVRTC is not installed, or it refuses the source (its log is in the message).
    """
    folder = _cache_folder()
    file = None if folder is None else folder / f"{kernel.entry}-{source_hash(kernel)[:32]}.ptx"
    if file is not None and (known := _stored(file)) is not None:
        return known
    text = lower_version(compile_source(kernel))
    if file is not None:
        _store(file, text)
    return text


def source_hash(kernel: Kernel) -> str:
    """SHA-256 over the source, the shared header, the options and NVRTC's version."""
    parts = [kernel.source.read_bytes(), *(path.read_bytes() for path in sorted(SOURCES.glob("*.cuh")))]
    parts += [" ".join(OPTIONS).encode(), PTX_VERSION.encode(), nvrtc_version().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def nvrtc_version() -> str:
    """NVRTC's version, "13.2".

    Raises:
        CompilerError: it is not installed.
    """
    major, minor = _call(_nvrtc().nvrtcVersion())
    return f"{major}.{minor}"


def compile_source(kernel: Kernel) -> bytes:
    """PTX as NVRTC writes it.

    Raises:
        CompilerError: NVRTC is not installed or refuses the source.
    """
    nvrtc = _nvrtc()
    headers = sorted(SOURCES.glob("*.cuh"))
    program = _call(
        nvrtc.nvrtcCreateProgram(
            kernel.source.read_bytes(),
            kernel.source.name.encode(),
            len(headers),
            [path.read_bytes() for path in headers],
            [path.name.encode() for path in headers],
        )
    )
    options = [option.encode() for option in OPTIONS]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        log = b" " * _call(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise CompilerError(f"NVRTC refuses {kernel.source.name}:\n{log.decode(errors='replace').strip()}")
    text = bytes(_call(nvrtc.nvrtcGetPTXSize(program)))
    _call(nvrtc.nvrtcGetPTX(program, text))
    nvrtc.nvrtcDestroyProgram(program)
    return text.rstrip(b"\0")


def lower_version(text: bytes) -> bytes:
    """The PTX with its `.version` line rewritten to PTX_VERSION.

    Raises:
        CompilerError: there is no such line.
    """
    lowered, count = re.subn(rb"(?m)^\.version \d+\.\d+$", f".version {PTX_VERSION}".encode(), text)
    if count != 1:
        raise CompilerError(f"The PTX has {count} .version lines, not one.")
    return lowered


def _nvrtc() -> Any:
    try:
        from cuda.bindings import nvrtc  # noqa: PLC0415 - its absence is an error in words, not at import

        nvrtc.nvrtcVersion()
    except (ImportError, RuntimeError) as error:
        raise CompilerError(
            "NVRTC, which compiles the plugins, is not installed: pip install cuda-bindings nvidia-cuda-nvrtc"
        ) from error
    return nvrtc


def _call(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if status.value != 0:
        raise CompilerError(f"NVRTC failed: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


def _cache_folder() -> Path | None:
    """None for a user without a home: `Path.expanduser` raises there, and ~ itself would be a folder of that name."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    base = base if base.is_absolute() else Path(os.path.expanduser("~/.cache"))  # noqa: PTH111
    return base / "tofe-export" / "ptx" if base.is_absolute() else None


def _stored(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except OSError:
        return None


def _store(file: Path, text: bytes) -> None:
    """Caching is a convenience: a home that cannot be written costs a second at the next start, nothing else."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as temporary:
            temporary.write(text)
        Path(temporary.name).replace(file)
    except OSError:
        return
