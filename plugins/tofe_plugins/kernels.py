"""What a launch of each kernel takes: the order of its arguments, its scalars and its grid, written once.

The TensorRT registration, the tests on a GPU and the emulation on the CPU all read it from here. TensorRT hands an
ahead-of-time kernel its inputs, then the int32 scalars, then its outputs (TensorRT document "Adding custom layers",
ahead-of-time Python plugins); a wrong order does not fail there, it returns garbage.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "cuda"
THREADS = 256
LANES = 16  # threads for each row, as in the sources
ROWS_PER_BLOCK = THREADS // LANES


@dataclass(frozen=True)
class Kernel:
    """A kernel's name, source and arguments.

    Attributes:
        operator: the graph operator it computes, without its domain.
        entry: the kernel's name in the PTX.
        inputs: tensors it reads, in the operator's order.
        scalars: int32 values, in order.
        outputs: tensors it writes, in the operator's order.
    """

    operator: str
    entry: str
    inputs: tuple[str, ...]
    scalars: tuple[str, ...]
    outputs: tuple[str, ...]

    @property
    def source(self) -> Path:
        """The `.cu` file."""
        return SOURCES / (self.entry.removeprefix("tofe_") + ".cu")

    @property
    def arguments(self) -> tuple[str, ...]:
        """All arguments in the order of the kernel's declaration."""
        return self.inputs + self.scalars + self.outputs

    def scalar_values(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The scalars among `values` (`patches`, `keep`, `prefix`, `row_bytes`), in the kernel's order."""
        return tuple(values[name] for name in self.scalars)


_SCALARS = ("patches", "keep", "prefix", "row_bytes")

TOKEN_PARTITION = Kernel(
    operator="TokenPartition",
    entry="tofe_token_partition",
    inputs=("tokens", "scores"),
    scalars=_SCALARS,
    outputs=("kept", "frozen", "perm"),
)
SCATTER_REARRANGE = Kernel(
    operator="ScatterRearrange",
    entry="tofe_scatter_rearrange",
    inputs=("kept", "frozen", "perm"),
    scalars=_SCALARS,
    outputs=("tokens",),
)
KERNELS = (TOKEN_PARTITION, SCATTER_REARRANGE)


def blocks(rows: int, threads: int = THREADS) -> int:
    """Thread blocks along the rows of an image (prefix and patch rows together); images are the grid's y axis."""
    per_block = threads // LANES
    return -(-rows // per_block)
