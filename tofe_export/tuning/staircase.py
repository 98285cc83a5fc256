"""Latency over kept tokens is a staircase: a kernel works on tiles of several rows, and a tile that is half empty costs
as much as a full one (arXiv 2407.05941 picks keep counts from it). One matrix product shows the steps in seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from tofe_export.documents.fields import Target
from tofe_export.documents.tuning import Step, TuneSettings
from tofe_export.graph.functions import OPSET
from tofe_export.graph.stored import add_initializer
from tofe_export.progress import Progress
from tofe_export.runners.base import TimedRunner
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.runners.openvino_runner import OpenVinoRunner

Floats = NDArray[np.float64]
_EXPANSION = 4  # of a transformer's MLP, its largest product
_REPEATS = 5
_NEAR = 0.01  # of the full latency: how far above the hull a count may lie


def measure_staircase(
    width: int, tokens: int, prefix: int, settings: TuneSettings, progress: Progress
) -> tuple[Step, ...]:
    """Times the product of an MLP's first layer for every number of kept tokens, 1..N.

    Args:
        width: channels C.
        tokens, prefix: N and P.
        settings: batch size, runtime and threads, as the model will run.
        progress: called for each number.
    """
    runner, counts = _product(width, settings.target, settings.threads), np.arange(1, tokens + 1)
    fastest = np.full(tokens, np.inf)
    orders = np.random.default_rng(0)
    for repeat in range(_REPEATS):  # each in another order, so that no stretch of bad luck hits one place
        for place in orders.permutation(tokens):
            call = runner.bind(np.ones((settings.batch * (int(counts[place]) + prefix), width), np.float32))
            call()
            fastest[place] = min(fastest[place], _ms(call))
        progress("Timing one product", repeat + 1, _REPEATS)
    smooth = IsotonicRegression().fit_transform(counts, fastest)  # more rows never take less
    return tuple(
        Step(count=int(count), ms=float(ms), efficient=bool(good))
        for count, ms, good in zip(counts, smooth, efficient(counts, smooth), strict=True)
    )


def efficient(counts: Sequence[int] | NDArray[np.int64], ms: Sequence[float] | Floats) -> NDArray[np.bool_]:
    """Which points of a staircase lie on its lower convex hull or near it: the right ends of the steps."""
    x, y = np.asarray(counts, dtype=np.float64), np.asarray(ms, dtype=np.float64)
    corners = list(_hull(x, y))
    hull: Floats = np.interp(x, x[corners], y[corners])
    costs_more_next = np.append(y[1:], np.inf) > y  # else one more token is free
    return np.asarray((y <= hull + _NEAR * y[-1]) & costs_more_next)


def _hull(x: Floats, y: Floats) -> Iterator[int]:
    """Places of the corners of the lower convex hull, from left to right (Andrew's monotone chain)."""
    corners: list[int] = []
    for place in range(len(x)):
        while len(corners) > 1 and _turn(x, y, corners[-2], corners[-1], place) <= 0:
            corners.pop()
        corners.append(place)
    yield from corners


def _turn(x: Floats, y: Floats, first: int, second: int, third: int) -> float:
    """Above 0 where the way over three points turns left."""
    return float((x[second] - x[first]) * (y[third] - y[first]) - (y[second] - y[first]) * (x[third] - x[first]))


def _product(width: int, target: Target, threads: int) -> TimedRunner:
    """[rows, C] times [C, 4C] in the runtime, any number of rows."""
    left = ir.Value(name="rows", shape=ir.Shape(["rows", width]), type=ir.TensorType(ir.DataType.FLOAT))
    graph = ir.Graph([left], [], nodes=[], opset_imports={"": OPSET}, name="product")
    values = np.random.default_rng(0).standard_normal((width, _EXPANSION * width), dtype=np.float32)
    node = ir.node("MatMul", [left, add_initializer(graph, "weight", values)], name="product")
    node.outputs[0].name, node.outputs[0].type = "out", ir.TensorType(ir.DataType.FLOAT)
    node.outputs[0].shape = ir.Shape(["rows", _EXPANSION * width])
    graph.append(node)
    graph.outputs.append(node.outputs[0])
    content = ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString()
    onnx.checker.check_model(content)
    return OpenVinoRunner(content, threads) if target == "openvino" else OnnxRuntimeRunner(content, threads)


def _ms(call: Callable[[], object]) -> float:
    start = time.perf_counter_ns()
    call()
    return (time.perf_counter_ns() - start) / 1e6
