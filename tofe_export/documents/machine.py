"""What machine and which versions a figure was measured with."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from tofe_export.documents.base import Part
from tofe_export.documents.fields import Count, NotNegative, Text

_PACKAGES = (
    *("torch", "timm", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "openvino"),
    *("tensorrt", "tensorrt-rtx", "executorch", "ai-edge-litert", "litert-torch", "numpy"),
)


class Machine(Part):
    """Processor, memory, GPU (None without one) and system, without host or user names."""

    processor: Text = ""
    processors: Count = 0
    instruction_sets: tuple[Text, ...] = ()
    memory_gib: NotNegative = 0.0
    gpu: Text | None = None
    system: Text = ""
    python: Text = ""


def processors() -> int:
    """Processors this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> Machine:
    """The machine this process runs on."""
    return Machine(
        processor=_cpu_model(),
        processors=processors(),
        instruction_sets=_instruction_sets(),
        memory_gib=round(_memory_bytes() / 2**30, 1),
        gpu=_gpu(),
        system=f"{platform.system()} {platform.machine()}",
        python=".".join(map(str, sys.version_info[:3])),
    )


def describe_versions() -> dict[str, str]:
    """Installed versions of the packages that figures depend on."""
    versions = {}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _cpu_model() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown"


def _instruction_sets() -> tuple[str, ...]:
    flags = set(_cpuinfo("flags").split())
    return tuple(name for name in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if name in flags)


def _gpu() -> str | None:
    """The GPU that PyTorch computes on; None without one, or where PyTorch has not been loaded (nothing was timed)."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
