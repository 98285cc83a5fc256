"""What this machine can run, and the next thing to type for what is missing. Imports nothing heavy at load."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tofe_export import __version__
from tofe_export.artifacts.machine import describe_machine
from tofe_export.engine.backend import INSTALL, MODULES

_DISTRIBUTION = "tofe-export"
_SHOWN = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors")
_ROOM_BYTES = 2 * 2**30  # an export of a large backbone, twice, while the old file is kept


@dataclass(frozen=True)
class Row:
    """A finding: `status` is ok, warn or missing; `next_step` says what mends it."""

    name: str
    value: str
    status: str = "ok"
    next_step: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All findings, in the order to show them, and the version matrix: (package, needed, installed)."""

    rows: list[Row]
    matrix: list[tuple[str, str, str]]

    @property
    def missing(self) -> bool:
        """Whether something that train, onnx, verify or bench needs is not there."""
        return any(row.status == "missing" for row in self.rows)


def examine() -> Diagnosis:
    """Looks at processor, disk, packages and GPU."""
    machine = describe_machine()
    sets = ", ".join(machine["instruction_sets"]) or "no AVX2"
    packages = [_package(name) for name in _SHOWN]
    broken = any(row.status == "missing" for row in packages)
    rows = [
        Row("tofe-export", __version__),
        Row("Python", machine["python"]),
        Row("processor", f"{machine['processor']}, {machine['processors']} to use ({sets})"),
        Row("memory", f"{machine['memory_gib']} GiB"),
        _disk(),
        *packages,
        _gpu(),
        *_engines(),
        Row("train, onnx, verify, bench", "not all of them" if broken else "work here", "warn" if broken else "ok"),
    ]
    return Diagnosis(rows, _matrix())


def minimum_versions() -> dict[str, Requirement]:
    """The requirements this distribution declares, by package, those of its extras among them."""
    try:
        declared = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    requirements = [Requirement(text) for text in declared]
    return {found.name: found for found in requirements}


def _matrix() -> list[tuple[str, str, str]]:
    wanted = minimum_versions()
    names = (*_SHOWN, "tensorrt", "tensorrt-rtx", "cuda-bindings")
    return [(name, str(wanted[name].specifier), _installed(name) or "-") for name in names if name in wanted]


def _package(name: str) -> Row:
    wanted = minimum_versions().get(name)
    install = f"pip install '{_DISTRIBUTION}[cpu]'" if name == "onnxruntime" else f"pip install '{wanted or name}'"
    found = _installed(name)
    if found is None:
        return Row(name, "not installed", "missing", install)
    if wanted is not None and Version(found) not in wanted.specifier:
        return Row(name, f"{found}, but {wanted.specifier} is needed", "missing", install)
    return Row(name, found + (_providers() if name == "onnxruntime" else ""))


def _installed(name: str) -> str | None:
    candidates = (name, "onnxruntime-gpu") if name == "onnxruntime" else (name,)
    for candidate in candidates:
        try:
            return importlib.metadata.version(candidate)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _providers() -> str:
    import onnxruntime  # noqa: PLC0415 - only once it is known to be there

    names = [provider.removesuffix("ExecutionProvider") for provider in onnxruntime.get_available_providers()]
    return f" ({', '.join(names)})"


def _gpu() -> Row:
    if "torch" not in sys.modules and _installed("torch") is None:
        return Row("GPU", "unknown without torch", "warn")
    import torch  # noqa: PLC0415 - only once it is known to be there

    if not torch.cuda.is_available():
        return Row("GPU", "none that PyTorch can use; everything runs on the CPU", "warn")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return Row("GPU", f"{names}; train uses it")


def _engines() -> list[Row]:
    """Driver, TensorRT, TensorRT-RTX, NVRTC and ptxas, each with what it lets you do."""
    driver = Path("/proc/driver/nvidia/version")
    shown = driver.read_text(encoding="utf-8").splitlines()[0] if driver.is_file() else ""
    return [
        Row("NVIDIA driver", shown) if shown else Row("NVIDIA driver", "none: engines can be built, not run", "warn"),
        _engine_package("tensorrt", "trt --backend tensorrt: engines with plugins; needs a GPU to build and to run"),
        _engine_package("rtx", "trt --backend rtx: builds without a GPU, runs on one; hosts no plugins"),
        _nvrtc(),
        _ptxas(),
    ]


def _engine_package(backend: str, use: str) -> Row:
    module, install = MODULES[backend], INSTALL[backend]
    found = _installed(module.replace("_", "-"))
    if found is None:
        return Row(module, f"not installed ({use})", "warn", install)
    wanted = minimum_versions().get(module.replace("_", "-"))
    if wanted is not None and Version(found) not in wanted.specifier:
        return Row(module, f"{found}, but {wanted.specifier} is needed", "warn", install)
    return Row(module, f"{found} ({use})")


def _nvrtc() -> Row:
    from tofe_plugins.compiler import CompilerError, nvrtc_version  # noqa: PLC0415 - loads a library

    try:
        return Row("NVRTC", f"{nvrtc_version()} (compiles the plugins)")
    except CompilerError:
        return Row(
            "NVRTC",
            "not installed: plugins cannot be compiled, function bodies stand in for them",
            "warn",
            "pip install cuda-bindings nvidia-cuda-nvrtc",
        )


def _ptxas() -> Row:
    from tofe_plugins.ptxas import find_ptxas  # noqa: PLC0415 - with its neighbour above

    found = find_ptxas()
    if found is None:
        return Row(
            "ptxas", "not found: the plugins' PTX cannot be proven for other GPUs here", "warn", "pip install triton"
        )
    return Row("ptxas", "proves the plugins' PTX for every GPU (tests)")


def _disk() -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 2**30:.1f} GiB free here"
    if free < _ROOM_BYTES:
        return Row("disk", text, "warn", "Free some space before exporting a large model.")
    return Row("disk", text)
