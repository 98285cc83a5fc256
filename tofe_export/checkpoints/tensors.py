"""Which tensors can be weights: arrays of real numbers in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tofe_export.errors import InputError

_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PLAIN = "Save it as plain numbers:"


def require_plain(weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError for a tensor that is not an array of real numbers in memory."""
    for key, value in weights.items():
        if value.is_meta:
            raise _unusable(key, path, "has no values, only a shape", "Save the weights themselves.")
        if value.is_quantized:
            raise _unusable(key, path, "is quantized", f"{_PLAIN} tensor.dequantize().")
        if value.layout != torch.strided:
            kind = str(value.layout).removeprefix("torch.").replace("_", " ")
            raise _unusable(key, path, f"is not a dense tensor but {kind}", f"{_PLAIN} tensor.to_dense().")
        if value.is_complex():
            raise _unusable(key, path, "holds complex numbers", "Save real weights.")


def require_floats(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises InputError where the network's state expects floats and gets codes, which mean nothing without a scale."""
    for key, value in weights.items():
        if key in expected and expected[key].is_floating_point() and value.dtype not in _FLOATS:
            kind = str(value.dtype).removeprefix("torch.")
            reason = f"is in {kind}, and its scale is not known"
            raise _unusable(key, path, reason, "Save the weights in float32, float16 or bfloat16.")


def _unusable(key: str, path: Path, reason: str, next_step: str) -> InputError:
    return InputError(f"{key} in {path} {reason}.", next_step, code="weight-unusable", path=path, name=key)


def count_held(weights: Mapping[str, Tensor]) -> int:
    """How many numbers the weights hold in memory; a tensor that repeats one number holds one."""
    return sum(min(value.numel(), value.untyped_storage().nbytes() // value.itemsize) for value in weights.values())
