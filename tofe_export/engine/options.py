"""What an engine is built for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tofe_export.bounds import LARGEST_BATCH, require_within
from tofe_export.errors import InputError, brief

_MOST_DIGITS = 20  # Python itself turns no text of any length into a number
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
PLUGIN_MODES = ("auto", "on", "off")
_AGAIN = "Build it again with tofe-export trt."
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("precision", "backend", "plugin", "batch", "hardware"), (str,)),
    **dict.fromkeys(("version_compatible", "taps"), (bool,)),
    "workspace_mib": (int, type(None)),
    "timing_cache": (str, type(None)),
    "compute_capabilities": (list, tuple),
}
HARDWARE = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes an engine takes: from `minimum` to `maximum`, tuned for `optimum`."""

    minimum: int = 1
    optimum: int = 8
    maximum: int = 64

    @staticmethod
    def parse(text: str) -> BatchProfile:
        """Reads "1:8:64", or "8" for one fixed size.

        Raises:
            InputError: anything else, sizes that do not rise from 1, or that are too large.
        """
        parts = [part.strip() for part in text.split(":")]
        if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
            raise InputError(f"--batch {text} is not MIN:OPT:MAX.", "Write --batch 1:8:64, or --batch 8.")
        if any(len(part) > _MOST_DIGITS for part in parts):
            raise InputError(f"--batch {text} is beyond {LARGEST_BATCH:,} images.", "Write --batch 1:8:64.")
        sizes = [int(part) for part in parts] * (3 if len(parts) == 1 else 1)
        if not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            raise InputError(f"The batch sizes {text} do not rise from 1.", "Write --batch 1:8:64.")
        require_within("--batch", sizes[2], 1, LARGEST_BATCH)
        return BatchProfile(*sizes)

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"


@dataclass(frozen=True)
class BuildOptions:
    """Options of `tofe-export trt`.

    Attributes:
        precision: one of `PRECISIONS`.
        backend: "auto", "tensorrt" or "rtx".
        plugin: "auto" takes the plugins where the backend hosts them, "on" insists, "off" takes the function bodies.
        batch: the optimization profile.
        workspace_mib: most scratch memory a layer may use; None leaves TensorRT's own limit.
        timing_cache: measured kernel times to read and extend (tensorrt only).
        version_compatible: an engine for later TensorRT versions too (tensorrt only).
        hardware: which other GPUs may run it (tensorrt only): "none", "ampere_plus" or "same_compute_capability".
        compute_capabilities: GPUs that RTX compiles for, "86", "120"; empty leaves that to the machine it runs on.
        taps: per-stage scores, perm and tokens as outputs, for verification stage by stage.
    """

    precision: str = "fp32"
    backend: str = "auto"
    plugin: str = "auto"
    batch: BatchProfile = BatchProfile()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: str = "none"
    compute_capabilities: tuple[str, ...] = ()
    taps: bool = False

    def to_dict(self) -> dict[str, Any]:
        """For the manifest; a timing cache's folder is nobody's business."""
        return {
            **asdict(self),
            "batch": str(self.batch),
            "compute_capabilities": list(self.compute_capabilities),
            "timing_cache": self.timing_cache.name if self.timing_cache else None,
        }

    @staticmethod
    def from_dict(document: Mapping[str, Any]) -> BuildOptions:
        """The inverse of `to_dict`, without a timing cache.

        Raises:
            InputError: a key is unknown, or a value is missing or of another kind.
        """
        if not isinstance(document, Mapping):
            raise InputError("The options of the engine are no mapping of names to values.", _AGAIN)
        for name, value in document.items():
            if not isinstance(name, str) or name not in _KINDS:
                raise InputError(f"The options of the engine have the unknown key {brief(name)}.", _AGAIN)
            if type(value) not in _KINDS[name]:
                raise InputError(f"The {name} of the engine is {brief(value)}.", _AGAIN)
        capabilities = document.get("compute_capabilities", ())
        if "batch" not in document or not all(isinstance(name, str) for name in capabilities):
            raise InputError("The options of the engine lack its batch sizes, or its GPUs are no texts.", _AGAIN)
        changed = {
            "batch": BatchProfile.parse(document["batch"]),
            "compute_capabilities": tuple(capabilities),
            "timing_cache": None,
        }
        return BuildOptions(**{**document, **changed})

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--precision", self.precision, PRECISIONS),
            ("--plugin", self.plugin, PLUGIN_MODES),
            ("--hardware-compat", self.hardware, HARDWARE),
        ):
            if value not in allowed:
                given = brief(value).strip("'")
                raise InputError(f"{option} {given} is not known.", f"Take one of {', '.join(allowed)}.")
