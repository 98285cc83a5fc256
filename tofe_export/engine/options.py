"""What an engine is built for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tofe_export.bounds import LARGEST_BATCH, MOST_MIB, require_within
from tofe_export.documents.fields import PRECISIONS, Precision
from tofe_export.documents.manifest import EngineOptions
from tofe_export.errors import InputError, brief

_MOST_DIGITS = 20  # Python refuses to turn very long texts into numbers
PLUGIN_MODES = ("auto", "on", "off")
HARDWARE = ("none", "ampere_plus", "same_compute_capability")


@dataclass(frozen=True)
class BatchProfile:
    """Batch sizes an engine takes: from `minimum` to `maximum`, tuned for `optimum`."""

    minimum: int = 1
    optimum: int = 8
    maximum: int = 64

    @staticmethod
    def of(batch: int | str | Sequence[int]) -> BatchProfile:
        """The profile of one fixed size, of (minimum, optimum, maximum), or of either as text: "8", "1:8:64".

        Raises:
            InputError: not one or three sizes, sizes that do not rise from 1, or that are too large.
        """
        if isinstance(batch, str):
            batch = _parsed(batch)
        sizes = [batch] * 3 if isinstance(batch, int) else list(batch)
        if len(sizes) != 3 or not 1 <= sizes[0] <= sizes[1] <= sizes[2]:
            text = ":".join(map(str, sizes))
            raise InputError(
                f"The sizes of `batch` {text} do not rise from 1.",
                "Give the least, the usual and the largest, such as 1:8:64.",
                code="batch-order",
            )
        require_within("batch", sizes[2], 1, LARGEST_BATCH)
        return BatchProfile(*sizes)

    def __str__(self) -> str:
        return f"{self.minimum}:{self.optimum}:{self.maximum}"


def _parsed(batch: str) -> int | list[int]:
    parts = [part.strip() for part in batch.split(":")]
    if len(parts) not in (1, 3) or not all(part.isdecimal() for part in parts):
        raise InputError(f"`batch` {batch} is not MIN:OPT:MAX.", "Write 1:8:64, or 8.", code="batch-text")
    if any(len(part) > _MOST_DIGITS for part in parts):
        raise InputError(f"`batch` {batch} is beyond {LARGEST_BATCH:,} images.", "Write 1:8:64.", code="out-of-range")
    sizes = [int(part) for part in parts]
    return sizes[0] if len(sizes) == 1 else sizes


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built for, and how.

    Attributes:
        backend: "auto", "tensorrt" or "rtx".
        plugin: "auto": the plugins where the backend hosts them; "on": required; "off": the function bodies.
        workspace_mib: most scratch memory a layer may use; None keeps TensorRT's own limit.
        timing_cache: measured kernel times to read and extend (tensorrt only).
        version_compatible: an engine for later TensorRT versions too (tensorrt only).
        hardware: which other GPUs may run it (tensorrt only): "none", "ampere_plus" or "same_compute_capability".
        compute_capabilities: GPUs that RTX compiles for, "86", "120"; when empty, the machine that runs it decides.
        taps: per-stage scores, perm and tokens as outputs, for verification stage by stage.
    """

    precision: Precision = "fp32"
    backend: str = "auto"
    plugin: str = "auto"
    batch: BatchProfile = BatchProfile()
    workspace_mib: int | None = None
    timing_cache: Path | None = None
    version_compatible: bool = False
    hardware: str = "none"
    compute_capabilities: tuple[str, ...] = ()
    taps: bool = False

    def document(self) -> EngineOptions:
        """For the manifest, without the folder of a timing cache."""
        cache = self.timing_cache.name if self.timing_cache else None
        return EngineOptions(**{**vars(self), "batch": str(self.batch), "timing_cache": cache})

    @staticmethod
    def of(document: EngineOptions) -> BuildOptions:
        """The inverse of `document`, without a timing cache.

        Raises:
            InputError: a value that is invalid.
        """
        return BuildOptions(**{**dict(document), "batch": BatchProfile.of(document.batch), "timing_cache": None})

    def __post_init__(self) -> None:
        require_within("workspace_mib", 1 if self.workspace_mib is None else self.workspace_mib, 1, MOST_MIB)
        for argument, value, allowed in (
            ("precision", self.precision, PRECISIONS),
            ("plugin", self.plugin, PLUGIN_MODES),
            ("hardware", self.hardware, HARDWARE),
        ):
            if value not in allowed:
                text = brief(value).strip("'")
                raise InputError(
                    f"`{argument}` {text} is not known.",
                    f"Use one of {', '.join(allowed)}.",
                    code="unknown-value",
                    name=argument,
                    value=value,
                )
