"""Registers both plugins with the TensorRT that is installed and drives its own Python layer; prints JSON.

In a process of its own: what is registered stays registered. Dimension expressions exist only inside a build, so a
small stand-in takes their place; everything else is TensorRT's.
"""

import json
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorrt as trt


class Dimension:
    """An expression of the batch size, in place of `trt.IDimensionExpr`."""

    def __init__(self, value: Callable[[int], int], constant: bool) -> None:
        self.value, self._constant = value, constant

    def is_constant(self) -> bool:
        return self._constant

    def get_constant_value(self) -> int:
        return self.value(0)

    def is_size_tensor(self) -> bool:
        return False


class Builder:
    """In place of `trt.IExprBuilder`."""

    def constant(self, value: int) -> Dimension:
        return Dimension(lambda batch: value, True)

    def operation(self, kind: Any, a: Dimension, b: Dimension) -> Dimension:
        known = {"SUM": operator.add, "SUB": operator.sub, "PROD": operator.mul, "FLOOR_DIV": operator.floordiv}
        function = known[kind.name]
        return Dimension(lambda batch: function(a.value(batch), b.value(batch)), a.is_constant() and b.is_constant())


trt.IDimensionExpr = Dimension
trt.DimsExprs = lambda length: [None] * length

import tensorrt.plugin as trtp  # noqa: E402
from tensorrt.plugin._lib import QDP_REGISTRY  # noqa: E402
from tofe_plugins.registration import register, registered  # noqa: E402

BATCH = Dimension(lambda batch: batch, False)
TYPES = {"float32": trt.float32, "float16": trt.float16, "bfloat16": trt.bfloat16, "int32": trt.int32}


def drive(name: str, attributes: dict[str, int], inputs: list[tuple[tuple[int, ...], str]]) -> dict[str, Any]:
    """Output types and shapes, type combinations, and the launch, at batch 5, as TensorRT's layer gets them."""
    creator = trt.get_plugin_registry().get_creator(name, "1", "tofe")
    fields = [trt.PluginField(k, np.array([v]), trt.PluginFieldType.INT64) for k, v in attributes.items()]
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    plugin = creator.create_plugin(name, "tofe", trt.PluginFieldCollection(fields), trt.TensorRTPhase.BUILD, request)
    types = [TYPES[dtype] for _, dtype in inputs]
    outputs = plugin.get_output_data_types(types, [len(shape) + 1 for shape, _ in inputs])
    builder = Builder()
    shapes = [[BATCH, *map(builder.constant, shape)] for shape, _ in inputs]
    made = plugin.get_output_shapes(shapes, [], builder)
    from tensorrt.plugin._tensor import SymIntExpr

    SymIntExpr._exprBuilder = builder
    definition = QDP_REGISTRY[f"tofe::{name}"]
    values = [attributes[key] for key in definition.aot_impl_attr_names]
    entry, ptx, launch, extra = definition.aot_impl_func(*plugin.input_descs, *values, plugin.output_descs, 0)
    combinations = definition.autotune_func(*plugin.input_descs, plugin.output_descs)
    kinds = [[str(kind) for kind in c.types] for one in combinations for c in one._get_combinations()]
    assert isinstance(launch, trtp.KernelLaunchParams)
    return {
        "dtypes": [str(dtype) for dtype in outputs],
        "shapes": [[axis.value(5) for axis in shape] for shape in made],
        "entry": entry,
        "ptx": ptx.decode()[-1:] != "" and f".entry {entry}(" in ptx.decode(),
        "grid": [launch.grid_x._expr.value(5), launch.grid_y._expr.value(5), launch.block_x._expr.value(5)],
        "scalars": [value._expr.value(5) for value in extra],
        "combinations": kinds,
    }


def refusal(name: str, attributes: dict[str, int], inputs: list[tuple[tuple[int, ...], str]]) -> str:
    try:
        drive(name, attributes, inputs)
    except ValueError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    register()
    register()  # twice is once
    tokens, scores = ((197, 384), "float16"), ((196,), "float32")
    kept, frozen, perm = ((97, 384), "bfloat16"), ((100, 384), "bfloat16"), ((196,), "int32")
    print(
        json.dumps(
            {
                "registered": registered(trt),
                "partition": drive("TokenPartition", {"keep": 96, "prefix": 1}, [tokens, scores]),
                "rearrange": drive("ScatterRearrange", {"prefix": 1}, [kept, frozen, perm]),
                "exchanged": refusal("TokenPartition", {"keep": 1, "prefix": 96}, [tokens, scores]),
                "too many": refusal("TokenPartition", {"keep": 300, "prefix": 1}, [tokens, scores]),
                "wrong dtype": refusal("TokenPartition", {"keep": 96, "prefix": 1}, [tokens, ((196,), "float16")]),
                "wrong rank": refusal("TokenPartition", {"keep": 96, "prefix": 1}, [((197,), "float16"), scores]),
                "mixed rows": refusal("ScatterRearrange", {"prefix": 1}, [kept, ((100, 384), "float32"), perm]),
            }
        )
    )
