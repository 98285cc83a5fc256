"""Which TensorRT is installed: `tensorrt` (10.13 or newer) or `tensorrt_rtx`, imported only when it is used."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from typing import Any, Literal

from packaging.version import Version
from tofe_plugins.registration import registered

from tofe_export.errors import InputError, MissingError

MODULES = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
INSTALL = {"tensorrt": "pip install 'tofe-export[tensorrt]'", "rtx": "pip install 'tofe-export[rtx]'"}
_OLDEST = Version("10.13")


@dataclass(frozen=True)
class Backend:
    """A TensorRT that is installed here.

    Attributes:
        name: "tensorrt" or "rtx".
        module: the imported module; the two have the same interface.
    """

    name: Literal["tensorrt", "rtx"]
    module: Any

    @property
    def version(self) -> str:
        """For example "11.4.0.106"."""
        return str(self.module.__version__)

    @property
    def hosts_plugins(self) -> bool:
        """TensorRT-RTX cannot; a parser that finds one registered aborts the process."""
        return self.name == "tensorrt"

    @property
    def obstacle(self) -> str | None:
        """Why its engines cannot run on this machine, as a clause; None where nothing is known against it.

        TensorRT-RTX runs on the GPUs that it can be told to build for and on later ones, so not on Hopper.
        """
        if not gpu_present():
            return "PyTorch finds no NVIDIA GPU here"
        if self.name == "tensorrt":
            return None
        import torch  # noqa: PLC0415 - heavy

        mine = torch.cuda.get_device_capability()
        names = (name.removeprefix("SM") for name in self.module.ComputeCapability.__members__)
        known = {(int(name[:-1]), int(name[-1])) for name in names if name.isdecimal()}
        if mine in known or mine > max(known):
            return None
        gpu = f"{torch.cuda.get_device_name()}, compute capability {mine[0]}.{mine[1]}"
        return f"TensorRT-RTX {self.version} does not run on the GPU here ({gpu})"


def installed(name: str) -> bool:
    """Whether the backend's package is installed (it is not imported)."""
    return importlib.util.find_spec(MODULES[name]) is not None


def open_backend(name: str) -> Backend:
    """Imports "tensorrt", "rtx", or for "auto" TensorRT where it is installed and has a GPU, else RTX.

    Raises:
        MissingError: it is not installed, too old, or its libraries do not load.
        InputError: no such backend.
    """
    if name == "auto":
        candidates = [candidate for candidate in MODULES if installed(candidate)]
        if not candidates:
            either = f"{INSTALL['rtx']}   or   {INSTALL['tensorrt']}"
            raise MissingError("Neither TensorRT nor TensorRT-RTX is installed.", either, code="backend-missing")
        name = candidates[0] if len(candidates) == 1 or gpu_present() else "rtx"
    if name not in MODULES:
        raise InputError(
            f"There is no backend {name!r}.", "Use auto, tensorrt or rtx.", code="backend-unknown", name=name
        )
    if not installed(name):
        raise MissingError(
            f"The package {MODULES[name]} is not installed.", INSTALL[name], code="backend-missing", name=name
        )
    try:
        module = importlib.import_module(MODULES[name])
    except (ImportError, OSError, AttributeError) as error:
        problem = f"{MODULES[name]} is installed but does not load: {error}"
        raise MissingError(problem, INSTALL[name], code="backend-broken", name=name) from error
    backend = Backend("rtx" if name == "rtx" else "tensorrt", module)
    if name == "tensorrt" and Version(backend.version) < _OLDEST:
        raise MissingError(
            f"TensorRT {backend.version} is older than {_OLDEST}.", INSTALL[name], code="backend-too-old", name=name
        )
    return backend


def backend_for_running() -> Backend | None:
    """What "auto" opens, where its engines can run on this machine.

    Raises:
        MissingError: see `open_backend`.
    """
    if not gpu_present() or not any(map(installed, MODULES)):
        return None
    backend = open_backend("auto")
    return None if backend.obstacle else backend


def guard_plugins(backend: Backend) -> None:
    """Raises InputError when TensorRT-RTX would meet a registered plugin: its parser would abort the process."""
    if not backend.hosts_plugins and (names := registered(backend.module)):
        raise InputError(
            f"Plugins are registered in this process ({', '.join(names)}), and TensorRT-RTX cannot host them.",
            "Build with RTX in a process that has not called tofe_plugins.register().",
            code="plugins-registered",
        )


def gpu_present() -> bool:
    """Whether PyTorch can use a GPU here."""
    import torch  # noqa: PLC0415 - heavy

    return torch.cuda.is_available()
