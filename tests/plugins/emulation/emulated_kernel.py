"""The kernels' own source, compiled by g++ and run on the CPU."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import torch
from tofe_plugins.kernels import SOURCES, THREADS, Kernel, blocks
from torch import Tensor

_HERE = Path(__file__).parent
_SCALAR, _INPUT, _OUTPUT = 0, 1, 2


class EmulatedKernel:
    """A kernel as a program of the CPU.

    Args:
        kernel: which one.
        folder: where the program is built.
        sanitizer: "address", "thread" or None.
        sources: where its source lies; the package's own folder unless a test says otherwise.
    """

    def __init__(self, kernel: Kernel, folder: Path, sanitizer: str | None = None, sources: Path = SOURCES) -> None:
        compiler = shutil.which("g++")
        if compiler is None:
            pytest.skip("g++ is not installed, so the kernels cannot be compiled for the CPU")
        self.kernel = kernel
        self._program = folder / f"{kernel.entry}-{sanitizer or 'plain'}"
        command = [compiler, "-std=c++20", "-O1", "-g", "-pthread", "-Wall", "-Wno-unknown-pragmas", "-Werror"]
        command += [f"-fsanitize={sanitizer}"] if sanitizer else []
        command += [f"-DKERNEL={kernel.entry}", f'-DSOURCE="{kernel.source.name}"', f"-I{sources}", f"-I{_HERE}"]
        command += ["-x", "c++", str(_HERE / "driver.cpp"), "-o", str(self._program)]
        subprocess.run(command, check=True)

    def __call__(
        self,
        inputs: dict[str, Tensor],
        outputs: dict[str, tuple[tuple[int, ...], torch.dtype]],
        scalars: dict[str, int],
        threads: int = THREADS,
        offset: int = 0,
    ) -> dict[str, Tensor]:
        """Launches it once.

        Args:
            inputs: tensors by name.
            outputs: shape and dtype by name.
            scalars: int32 values by name.
            threads: CUDA threads a block.
            offset: bytes by which every tensor misses a 16-byte boundary.
        """
        rows = scalars["prefix"] + scalars["patches"]
        batch = next(iter(inputs.values())).shape[0]
        message = struct.pack("<3i", blocks(rows, threads), batch, threads)
        for name in self.kernel.arguments:
            if name in self.kernel.scalars:
                message += struct.pack("<3i", _SCALAR, scalars[name], 0)
            elif name in self.kernel.inputs:
                content = to_bytes(inputs[name])
                message += struct.pack("<3i", _INPUT, len(content), offset) + content
            else:
                message += struct.pack("<3i", _OUTPUT, _size(*outputs[name]), offset)
        result = subprocess.run([self._program], input=message, capture_output=True, check=False)
        assert result.returncode == 0, result.stderr.decode(errors="replace")[-4000:]
        return self._split(result.stdout, outputs)

    def _split(self, content: bytes, outputs: dict[str, tuple[tuple[int, ...], torch.dtype]]) -> dict[str, Tensor]:
        found = {}
        for name in self.kernel.outputs:
            shape, dtype = outputs[name]
            size = _size(shape, dtype)
            found[name] = torch.frombuffer(bytearray(content[:size] or b"\0" * 4), dtype=dtype)[
                : _count(shape)
            ].reshape(shape)
            content = content[size:]
        assert not content
        return found


def to_bytes(tensor: Tensor) -> bytes:
    """The tensor's memory, bit by bit."""
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _count(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _size(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    return _count(shape) * dtype.itemsize
