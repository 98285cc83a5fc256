"""The two operators as quickly deployable TensorRT plugins, ahead of time: their PTX is stored in the engine.

An engine built with them runs anywhere TensorRT runs: no Python, no plugin library. TensorRT reads the signatures'
annotations while it registers, so this module must not postpone them.
"""

# TensorRT's classes are known only at run time, as values.
# mypy: disable-error-code="valid-type, untyped-decorator, attr-defined, no-any-return"

import functools
from typing import Any

from tofe_plugins.checks import ITEM_BYTES, OperatorError, check_counts, check_dtypes, check_ranks
from tofe_plugins.compiler import ptx
from tofe_plugins.kernels import KERNELS, SCATTER_REARRANGE, THREADS, TOKEN_PARTITION, Kernel, blocks

NAMESPACE = "tofe"
VERSION = "1"
_ROWS = "FP32|FP16|BF16"  # one choice for all of a plugin's rows
_DTYPE_NAMES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT32": "int32"}


@functools.cache
def register() -> None:
    """Registers both plugins with `tensorrt` (10.13 or newer), once; compiles their kernels first.

    Never call it in a process that builds with TensorRT-RTX: RTX would pick the plugins, which it cannot host, and
    abort.

    Raises:
        ImportError: `tensorrt` or its plugin layer is not installed.
        CompilerError: NVRTC is missing or refuses a source.
    """
    import tensorrt.plugin as trtp  # noqa: PLC0415 - only where it is installed

    for kernel in KERNELS:
        ptx(kernel)
    _register_partition(trtp)
    _register_rearrange(trtp)


def registered(trt: Any) -> list[str]:
    """The operators among ours that a TensorRT module's registry knows, whoever put them there.

    Args:
        trt: the module `tensorrt` or `tensorrt_rtx`.
    """
    ours = {kernel.operator for kernel in KERNELS}
    creators = trt.get_plugin_registry().all_creators
    return sorted({c.name for c in creators if c.plugin_namespace == NAMESPACE and c.name in ours})


def _register_partition(trtp: Any) -> None:
    tensor = trtp.TensorDesc

    @trtp.register(f"{NAMESPACE}::{TOKEN_PARTITION.operator}")
    def describe(tokens: tensor, scores: tensor, keep: int, prefix: int) -> tuple[tensor, tensor, tensor]:
        _check(TOKEN_PARTITION, {"tokens": tokens, "scores": scores})
        batch, rows, width = (tokens.shape_expr[axis] for axis in range(3))
        patches = scores.shape_expr[1]
        if _constant(rows) and _constant(patches):
            check_counts(TOKEN_PARTITION.operator, patches.constant_value(), keep, prefix, rows.constant_value())
        kept = trtp.from_shape_expr((batch, prefix + keep, width), tokens.dtype)
        frozen = trtp.from_shape_expr((batch, patches - keep, width), tokens.dtype)
        perm = trtp.from_shape_expr((batch, patches), _int32())
        return kept, frozen, perm

    @trtp.autotune(f"{NAMESPACE}::{TOKEN_PARTITION.operator}")
    def autotune(
        tokens: tensor, scores: tensor, outputs: tuple[tensor, tensor, tensor]
    ) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(f"{_ROWS}, FP32, {_ROWS}, {_ROWS}, INT32", "LINEAR")]

    @trtp.aot_impl(f"{NAMESPACE}::{TOKEN_PARTITION.operator}")
    def implement(
        tokens: tensor, scores: tensor, keep: int, prefix: int, outputs: tuple[tensor, tensor, tensor], tactic: int
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        return _launch(trtp, TOKEN_PARTITION, tokens, scores.shape_expr[1], keep, prefix)


def _register_rearrange(trtp: Any) -> None:
    tensor = trtp.TensorDesc

    @trtp.register(f"{NAMESPACE}::{SCATTER_REARRANGE.operator}")
    def describe(kept: tensor, frozen: tensor, perm: tensor, prefix: int) -> tensor:
        _check(SCATTER_REARRANGE, {"kept": kept, "frozen": frozen, "perm": perm})
        batch, kept_rows, width = (kept.shape_expr[axis] for axis in range(3))
        rows, patches = kept_rows + frozen.shape_expr[1], perm.shape_expr[1]
        if _constant(rows) and _constant(patches):
            keep = kept_rows.constant_value() - prefix
            check_counts(SCATTER_REARRANGE.operator, patches.constant_value(), keep, prefix, rows.constant_value())
        return trtp.from_shape_expr((batch, rows, width), kept.dtype)

    @trtp.autotune(f"{NAMESPACE}::{SCATTER_REARRANGE.operator}")
    def autotune(kept: tensor, frozen: tensor, perm: tensor, outputs: tuple[tensor]) -> list[trtp.AutoTuneCombination]:
        return [trtp.AutoTuneCombination(f"{_ROWS}, {_ROWS}, INT32, {_ROWS}", "LINEAR")]

    @trtp.aot_impl(f"{NAMESPACE}::{SCATTER_REARRANGE.operator}")
    def implement(
        kept: tensor, frozen: tensor, perm: tensor, prefix: int, outputs: tuple[tensor], tactic: int
    ) -> tuple[str | bytes, str | bytes, trtp.KernelLaunchParams, trtp.SymIntExprs]:
        keep = kept.shape_expr[1] - prefix
        return _launch(trtp, SCATTER_REARRANGE, outputs[0], perm.shape_expr[1], keep, prefix)


def _launch(trtp: Any, kernel: Kernel, whole: Any, patches: Any, keep: Any, prefix: int) -> tuple[Any, Any, Any, Any]:
    """Kernel name, PTX, launch shape and scalars; `whole` is the tensor that holds all rows, [B, P+N, C]."""
    batch, rows, width = (whole.shape_expr[axis] for axis in range(3))
    values = {
        "patches": patches,
        "keep": keep,
        "prefix": prefix,
        "row_bytes": width * ITEM_BYTES[_dtype(whole)],
    }
    scalars = kernel.scalar_values(values)
    extra = trtp.SymIntExprs(len(scalars))
    for index, value in enumerate(scalars):
        extra[index] = trtp.SymInt32(value)
    params = trtp.KernelLaunchParams()
    params.grid_x, params.grid_y = blocks(rows.constant_value()), batch
    params.block_x = THREADS
    return kernel.entry, ptx(kernel), params, extra


def _check(kernel: Kernel, tensors: dict[str, Any]) -> None:
    check_dtypes(kernel.operator, {name: _dtype(tensor) for name, tensor in tensors.items()})
    check_ranks(kernel.operator, {name: tensor.ndim for name, tensor in tensors.items()})


def _dtype(tensor: Any) -> str:
    return _DTYPE_NAMES.get(tensor.dtype.name, tensor.dtype.name.lower())


def _constant(expression: Any) -> bool:
    return not expression.is_fake and expression.is_constant


def _int32() -> Any:
    import tensorrt  # noqa: PLC0415 - only where it is installed

    return tensorrt.int32


__all__ = ["NAMESPACE", "VERSION", "OperatorError", "register", "registered"]
