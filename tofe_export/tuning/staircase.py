"""Latency over kept tokens is a staircase: a kernel works on tiles of several rows, and a tile that is half empty costs
as much as a full one (arXiv 2407.05941 picks keep counts from it). One matrix product shows the steps in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

from tofe_export.documents.fields import Target
from tofe_export.documents.tuning import Step
from tofe_export.progress import Progress
from tofe_export.runners.base import TimedRunner
from tofe_export.runners.onnxruntime_runner import OnnxRuntimeRunner
from tofe_export.runners.openvino_runner import OpenVinoRunner
from tofe_export.timing.blocks import time_ms
from tofe_export.timing.products import product_model

Floats = NDArray[np.float64]
_EXPANSION = 4  # of a transformer's MLP, its largest product
_REPEATS = 5
_NEAR = 0.01  # of the full latency: how far above the hull a count may lie


def measure_staircase(
    width: int, tokens: int, prefix: int, batch: int, target: Target, threads: int, progress: Progress
) -> tuple[Step, ...]:
    """Times the product of an MLP's first layer for every number of kept tokens, 1..N.

    Args:
        width: channels C.
        tokens, prefix: N and P.
        batch, target, threads: as the model will run.
        progress: called for each number.
    """
    runner, counts = _product(width, target, threads), np.arange(1, tokens + 1)
    fastest = np.full(tokens, np.inf)
    orders = np.random.default_rng(0)
    for repeat in range(_REPEATS):  # each in another order, so that no stretch of bad luck hits one place
        for place in orders.permutation(tokens):
            call = runner.bind(np.ones((batch * (int(counts[place]) + prefix), width), np.float32))
            call()
            fastest[place] = min(fastest[place], time_ms(call))
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
    weights = np.random.default_rng(0).standard_normal((width, _EXPANSION * width), dtype=np.float32)
    content = product_model("MatMul", ("rows", width), weights, "float32").SerializeToString()
    return OpenVinoRunner(content, threads) if target == "openvino" else OnnxRuntimeRunner(content, threads)
