"""NVIDIA's assembler, where there is one: proof that PTX is fit for a GPU that is not here."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ARCHITECTURES = ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")


def find_ptxas() -> Path | None:
    """`ptxas` on the PATH, or the one that triton (a dependency of PyTorch) brings along."""
    if found := shutil.which("ptxas"):
        return Path(found)
    triton = importlib.util.find_spec("triton")
    for folder in (triton.submodule_search_locations or []) if triton else []:
        bundled = Path(folder) / "backends" / "nvidia" / "bin" / "ptxas"
        if bundled.is_file():
            return bundled
    return None


def assemble(ptxas: Path, ptx: bytes, architecture: str) -> str:
    """Assembles PTX for one GPU architecture; returns ptxas's resource report.

    Raises:
        ValueError: ptxas refuses it, with its words.
    """
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_bytes(ptx)
        command = [os.fspath(ptxas), "-v", f"-arch={architecture}", os.fspath(source), "-o", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"ptxas refuses the PTX for {architecture}: {done.stderr.strip()}")
    return done.stderr
