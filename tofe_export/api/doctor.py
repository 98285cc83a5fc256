"""What this machine can run, and what to install for what is missing. Imports nothing heavy at load."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from tofe_export import __version__
from tofe_export.documents.diagnosis import Diagnosis, Finding, Status
from tofe_export.documents.machine import describe_machine
from tofe_export.engine.backend import INSTALL, MODULES

_DISTRIBUTION = "tofe-export"
_SHOWN = ("torch", "torchvision", "timm", "onnx", "onnxscript", "onnxruntime", "safetensors")
_EXECUTORCH, _LITERT = (f"pip install '{_DISTRIBUTION}[{extra}]'" for extra in ("executorch", "litert"))
_OPENVINO = f"pip install '{_DISTRIBUTION}[openvino]'"
_CPU = f"pip install '{_DISTRIBUTION}[cpu]'"
_ENGINES = {
    "tensorrt": " (engines with plugins; needs a GPU to build and to run)",
    "rtx": " (engines built without a GPU, run on one; hosts no plugins)",
}
_ROOM_BYTES = 2 * 2**30  # an export of a large backbone, twice, while the old file is kept


def doctor() -> Diagnosis:
    """Looks at processor, disk, packages and GPU."""
    machine, required = describe_machine(), _requirements()
    sets = ", ".join(machine.instruction_sets) or "no AVX2"
    packages = [_package(name, required, _CPU if name == "onnxruntime" else "") for name in _SHOWN]
    broken = any(row.status == "missing" for row in packages)
    rows = [
        _finding("tofe-export", __version__),
        _finding("Python", machine.python),
        _finding("processor", f"{machine.processor}, {machine.processors} to use ({sets})"),
        _finding("memory", f"{machine.memory_gib} GiB"),
        _disk(),
        *packages,
        _package("openvino", required, _OPENVINO, " (Intel and AMD processors)", "warn"),
        _package("executorch", required, _EXECUTORCH, " (phones)", "warn"),
        _package("litert-torch", required, _LITERT, " (phones)", "warn"),
        _gpu(),
        _driver(),
        *(_package(MODULES[name], required, INSTALL[name], use, "warn") for name, use in _ENGINES.items()),
        _nvrtc(),
        _finding("train, export, verify, bench", *(("not all of them", "warn") if broken else ("work here", "ok"))),
    ]
    matrix = [
        (name, str(required[name].specifier), _installed(name) or "-")
        for name in (*_SHOWN, "openvino", "executorch", "litert-torch", "tensorrt", "tensorrt-rtx", "cuda-bindings")
        if name in required
    ]
    return Diagnosis(rows=tuple(rows), matrix=tuple(matrix), missing=broken)


def _finding(name: str, value: str, status: Status = "ok", next_step: str = "") -> Finding:
    return Finding(name=name, value=value, status=status, next_step=next_step)


def _requirements() -> dict[str, Requirement]:
    """What this distribution declares, by package, its extras included."""
    try:
        declared = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    return {requirement.name: requirement for requirement in map(Requirement, declared)}


def _package(
    name: str, required: Mapping[str, Requirement], install: str = "", use: str = "", status: Status = "missing"
) -> Finding:
    """A package and its `use`; with `status` and the command to `install` it where it is missing or too old."""
    distribution = name.replace("_", "-")
    version, needed = _installed(distribution), required.get(distribution)
    install = install or f"pip install '{needed or name}'"
    if version is None:
        return _finding(name, f"not installed{use}", status, install)
    if needed is not None and Version(version) not in needed.specifier:
        return _finding(name, f"{version}, but {needed.specifier} is required", status, install)
    return _finding(name, version + (_providers() if name == "onnxruntime" else use))


def _installed(name: str) -> str | None:
    for candidate in (name, "onnxruntime-gpu") if name == "onnxruntime" else (name,):
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


def _driver() -> Finding:
    file = Path("/proc/driver/nvidia/version")
    version = file.read_text(encoding="utf-8").partition("\n")[0] if file.is_file() else ""
    none = _finding("NVIDIA driver", "none: engines can be built, not run", "warn")
    return _finding("NVIDIA driver", version) if version else none


def _nvrtc() -> Finding:
    from tofe_plugins.compiler import CompilerError, nvrtc_version  # noqa: PLC0415 - loads a library

    try:
        return _finding("NVRTC", f"{nvrtc_version()} (compiles the plugins)")
    except CompilerError:
        without = "not installed: plugins cannot be compiled, function bodies stand in for them"
        return _finding("NVRTC", without, "warn", "pip install cuda-bindings nvidia-cuda-nvrtc")


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 2**30:.1f} GiB free here"
    if free < _ROOM_BYTES:
        return _finding("disk", text, "warn", "Free some space before exporting a large model.")
    return _finding("disk", text)
