"""Figures of docs/studies.md, from the committed results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from studies.experiments import DENSE, DEPTHS
from studies.results import Line

IMAGES = Path(__file__).parent.parent / "docs" / "images"
_SIZE = (6.4, 4.0)  # inches
_COLORS = {
    "bottleneck": "#0072b2",
    "discard": "#d55e00",
    "dynamicvit": "#009e73",
    "evit": "#cc79a7",
    "identity": "#e69f00",
}
"""By kind of arm: colors that can be told apart with any color vision (Okabe and Ito)."""
_SIDES = ("before", "after")  # errors of frozen tokens, without and with their estimate
_NAMES = {
    "bottleneck": "ToFe (bottleneck)",
    "discard": "discard, thresholds",
    "dynamicvit": "discard, given counts (as DynamicViT)",
    "evit": "fused token (as EViT)",
}
_DEPTH_NAMES = {"bottleneck": "bottleneck, fitted alone", "identity": "identity"}


def budget_figure(arms: dict[str, list[Line]]) -> Figure | None:
    """Accuracy against cost, a curve for each way to save; None before there is a curve."""
    figure, axes = _empty("MACs, share of the dense network's", "held-out accuracy")
    drawn = False
    for kind in ("bottleneck", "discard", "dynamicvit", "evit"):
        there = [arms[f"{kind}-{budget}"] for budget in (70, 50, 35) if f"{kind}-{budget}" in arms]
        if len(there) > 1:
            _curve(axes, kind, [_mean(lines, "macs_ratio") for lines in there], there)
            drawn = True
    if DENSE in arms:
        axes.axhline(_mean(arms[DENSE], "accuracy"), color="0.4", linestyle=":", label="dense, trained as much longer")
    return _with_legend(figure, axes) if drawn else None


def depth_figure(arms: dict[str, list[Line]]) -> Figure | None:
    """Error of the estimates and accuracy by the number of blocks that one stage spans."""
    blocks = [depth for depth in DEPTHS if all(f"{kind}-{depth}-blocks" in arms for kind in ("bottleneck", "identity"))]
    if len(blocks) < 2:
        return None
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    left, right = figure.subplots(1, 2)
    for kind in ("bottleneck", "identity"):
        there, label = [arms[f"{kind}-{depth}-blocks"] for depth in blocks], _DEPTH_NAMES[kind]
        errors = {side: [[line["errors"][0]["all"][side] for line in lines] for lines in there] for side in _SIDES}
        _line(left, kind, blocks, errors["after"], label)
        if kind == "bottleneck":
            means = [float(np.mean(one)) for one in errors["before"]]
            left.plot(blocks, means, color=_COLORS[kind], linestyle=":", label="the same tokens, as they were frozen")
        _line(right, kind, blocks, [[line["accuracy"] for line in lines] for lines in there], label)
    left.set_ylabel("relative error of frozen tokens")
    right.set_ylabel("held-out accuracy")
    for axes in (left, right):
        axes.set_xlabel("blocks that the stage spans")
        axes.set_xticks(blocks)
        axes.legend(frameon=False)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def hardware_figure(document: dict[str, Any], batch: int) -> Figure | None:
    """Accuracy against speed-up over the dense network in the same runtime."""
    figure, axes = _empty(f"speed-up over the dense network, batch {batch}", "held-out accuracy")
    rows = [row for row in document["rows"] if row["batch"] == batch]
    for form, mark in (("onnxruntime", "o"), ("openvino", "s"), ("int8", "^")):
        those = [row for row in rows if row["form"] == form]
        axes.plot([row["speedup"] for row in those], [row["accuracy"] for row in those], mark, label=form)
        for row in those:
            axes.annotate(row["arm"], (row["speedup"], row["accuracy"]), (4, 3), textcoords="offset points", fontsize=7)
    axes.axvline(1.0, color="0.7", linewidth=0.8)
    return _with_legend(figure, axes) if rows else None


def _empty(across: str, up: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=_SIZE, layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _curve(axes: Axes, kind: str, across: Sequence[float], arms: Sequence[Sequence[Line]]) -> None:
    _line(axes, kind, across, [[line["accuracy"] for line in lines] for lines in arms], _NAMES[kind])


def _line(axes: Axes, kind: str, across: Sequence[float], values: Sequence[Sequence[float]], label: str) -> None:
    """Means, with bars from the least to the most of a seed."""
    means = [float(np.mean(one)) for one in values]
    ends = [[mean - min(one) for mean, one in zip(means, values, strict=True)]]
    ends.append([max(one) - mean for mean, one in zip(means, values, strict=True)])
    axes.errorbar(across, means, ends, color=_COLORS[kind], marker="o", capsize=3, label=label)


def _mean(lines: Sequence[Line], what: str) -> float:
    return float(np.mean([line[what] for line in lines]))


def _with_legend(figure: Figure, axes: Axes) -> Figure:
    axes.legend(frameon=False, fontsize=8)
    return figure
