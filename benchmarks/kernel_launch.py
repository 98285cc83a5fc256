"""Runs the kernels on a GPU from the same PTX and the same argument order that TensorRT gets. Tensors are PyTorch's."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Mapping
from typing import Any

import torch
from tofe_plugins.compiler import ptx
from tofe_plugins.kernels import SCATTER_REARRANGE, THREADS, TOKEN_PARTITION, Kernel, blocks
from torch import Tensor


def token_partition(tokens: Tensor, scores: Tensor, keep: int, prefix: int) -> tuple[Tensor, Tensor, Tensor]:
    """The operator on CUDA tensors (arguments and results: `tofe_export.model.operators.token_partition`)."""
    batch, rows, width = tokens.shape
    patches = scores.shape[1]
    kept = tokens.new_empty(batch, prefix + keep, width)
    frozen = tokens.new_empty(batch, patches - keep, width)
    perm = torch.empty(batch, patches, dtype=torch.int32, device=tokens.device)
    values = {"patches": patches, "keep": keep, "prefix": prefix, "row_bytes": width * tokens.element_size()}
    tensors = {"tokens": tokens, "scores": scores, "kept": kept, "frozen": frozen, "perm": perm}
    launch(TOKEN_PARTITION, tensors, values, rows, batch)
    return kept, frozen, perm


def scatter_rearrange(kept: Tensor, frozen: Tensor, perm: Tensor, prefix: int) -> Tensor:
    """The operator on CUDA tensors (arguments and result: `tofe_export.model.operators.scatter_rearrange`)."""
    batch, kept_rows, width = kept.shape
    rows = kept_rows + frozen.shape[1]
    tokens = kept.new_empty(batch, rows, width)
    values = {
        "patches": perm.shape[1],
        "keep": kept_rows - prefix,
        "prefix": prefix,
        "row_bytes": width * kept.element_size(),
    }
    launch(SCATTER_REARRANGE, {"kept": kept, "frozen": frozen, "perm": perm, "tokens": tokens}, values, rows, batch)
    return tokens


def launch(kernel: Kernel, tensors: Mapping[str, Tensor], scalars: Mapping[str, int], rows: int, batch: int) -> None:
    """Launches on PyTorch's current stream.

    Args:
        kernel: which one.
        tensors: contiguous CUDA tensors by argument name.
        scalars: int32 values by argument name.
        rows: prefix and patch rows of an image.
        batch: images.

    Raises:
        RuntimeError: the driver refuses the PTX or the launch.
    """
    from cuda.bindings import driver  # noqa: PLC0415 - only with a GPU

    values = [tensors[name].data_ptr() if name in tensors else scalars[name] for name in kernel.arguments]
    kinds = [ctypes.c_void_p if name in tensors else ctypes.c_int for name in kernel.arguments]
    stream = torch.cuda.current_stream().cuda_stream
    grid = (blocks(rows), batch, 1)
    arguments = (tuple(values), tuple(kinds))
    _check(driver.cuLaunchKernel(_function(kernel), *grid, THREADS, 1, 1, 0, stream, arguments, 0))


@functools.cache
def _function(kernel: Kernel) -> Any:
    from cuda.bindings import driver  # noqa: PLC0415 - only with a GPU

    torch.cuda.current_stream()  # PyTorch makes the context that the module is loaded into
    module = _check(driver.cuModuleLoadData(ptx(kernel)))
    return _check(driver.cuModuleGetFunction(module, kernel.entry.encode()))


def _check(result: tuple[Any, ...]) -> Any:
    status, *values = result
    if status.value != 0:
        raise RuntimeError(f"The CUDA driver says {status.name}")
    return values[0] if values else None
