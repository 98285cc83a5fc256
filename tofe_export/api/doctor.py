"""What this machine can run, and what to install for what is missing. Imports nothing heavy at load."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tofe_export import __version__
from tofe_export.documents.diagnosis import Diagnosis, Finding, Status
from tofe_export.documents.machine import describe_machine
from tofe_export.engine.backend import INSTALL, MODULES

_DISTRIBUTION = "tofe-export"
_SHOWN = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors")
_ROOM_BYTES = 2 * 2**30  # an export of a large backbone, twice, while the old file is kept


def doctor() -> Diagnosis:
    """Looks at processor, disk, packages and GPU."""
    machine = describe_machine()
    sets = ", ".join(machine.instruction_sets) or "no AVX2"
    packages = [_package(name) for name in _SHOWN]
    broken = any(row.status == "missing" for row in packages)
    rows = [
        _finding("tofe-export", __version__),
        _finding("Python", machine.python),
        _finding("processor", f"{machine.processor}, {machine.processors} to use ({sets})"),
        _finding("memory", f"{machine.memory_gib} GiB"),
        _disk(),
        *packages,
        _gpu(),
        *_engines(),
        _finding("train, export, verify, bench", *(("not all of them", "warn") if broken else ("work here", "ok"))),
    ]
    return Diagnosis(rows=tuple(rows), matrix=_matrix(), missing=broken)


def _finding(name: str, value: str, status: Status = "ok", next_step: str = "") -> Finding:
    return Finding(name=name, value=value, status=status, next_step=next_step)


def minimum_versions() -> dict[str, Requirement]:
    """The requirements this distribution declares, by package, those of its extras among them."""
    try:
        declared = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    requirements = [Requirement(text) for text in declared]
    return {requirement.name: requirement for requirement in requirements}


def _matrix() -> tuple[tuple[str, str, str], ...]:
    required = minimum_versions()
    names = (*_SHOWN, "tensorrt", "tensorrt-rtx", "cuda-bindings")
    return tuple((name, str(required[name].specifier), _installed(name) or "-") for name in names if name in required)


def _package(name: str) -> Finding:
    required = minimum_versions().get(name)
    install = f"pip install '{_DISTRIBUTION}[cpu]'" if name == "onnxruntime" else f"pip install '{required or name}'"
    version = _installed(name)
    if version is None:
        return _finding(name, "not installed", "missing", install)
    if required is not None and Version(version) not in required.specifier:
        return _finding(name, f"{version}, but {required.specifier} is required", "missing", install)
    return _finding(name, version + (_providers() if name == "onnxruntime" else ""))


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


def _gpu() -> Finding:
    if "torch" not in sys.modules and _installed("torch") is None:
        return _finding("GPU", "unknown without torch", "warn")
    import torch  # noqa: PLC0415 - only once it is known to be there

    if not torch.cuda.is_available():
        return _finding("GPU", "none that PyTorch can use; everything runs on the CPU", "warn")
    names = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return _finding("GPU", f"{names}; train uses it")


def _engines() -> list[Finding]:
    """Driver, TensorRT, TensorRT-RTX and NVRTC, each with what it lets you do."""
    driver = Path("/proc/driver/nvidia/version")
    shown = driver.read_text(encoding="utf-8").splitlines()[0] if driver.is_file() else ""
    none = _finding("NVIDIA driver", "none: engines can be built, not run", "warn")
    return [
        _finding("NVIDIA driver", shown) if shown else none,
        _engine_package("tensorrt", "engines with plugins; needs a GPU to build and to run"),
        _engine_package("rtx", "engines built without a GPU, run on one; hosts no plugins"),
        _nvrtc(),
    ]


def _engine_package(backend: str, use: str) -> Finding:
    module, install = MODULES[backend], INSTALL[backend]
    version = _installed(module.replace("_", "-"))
    if version is None:
        return _finding(module, f"not installed ({use})", "warn", install)
    required = minimum_versions().get(module.replace("_", "-"))
    if required is not None and Version(version) not in required.specifier:
        return _finding(module, f"{version}, but {required.specifier} is required", "warn", install)
    return _finding(module, f"{version} ({use})")


def _nvrtc() -> Finding:
    from tofe_plugins.compiler import CompilerError, nvrtc_version  # noqa: PLC0415 - loads a library

    try:
        return _finding("NVRTC", f"{nvrtc_version()} (compiles the plugins)")
    except CompilerError:
        return _finding(
            "NVRTC",
            "not installed: plugins cannot be compiled, function bodies stand in for them",
            "warn",
            "pip install cuda-bindings nvidia-cuda-nvrtc",
        )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 2**30:.1f} GiB free here"
    if free < _ROOM_BYTES:
        return _finding("disk", text, "warn", "Free some space before exporting a large model.")
    return _finding("disk", text)
