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
    """All findings, in the order to show them."""

    rows: list[Row]

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
        Row("train, onnx, verify, bench", "not all of them" if broken else "work here", "warn" if broken else "ok"),
    ]
    return Diagnosis(rows)


def minimum_versions() -> dict[str, Requirement]:
    """The requirements this distribution declares, by package, those of its extras among them."""
    try:
        declared = importlib.metadata.requires(_DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        declared = []
    requirements = [Requirement(text) for text in declared]
    return {found.name: found for found in requirements}


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


def _disk() -> Row:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 2**30:.1f} GiB free here"
    if free < _ROOM_BYTES:
        return Row("disk", text, "warn", "Free some space before exporting a large model.")
    return Row("disk", text)
