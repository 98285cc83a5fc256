"""Charts of the training log: accuracy, kept tokens, cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tofe_export.documents.history import DENSE, TOFE, History, Phase
from tofe_export.errors import count
from tofe_export.page.drawing import Chart, Entry, Ink, legend_above
from tofe_export.page.wording import percent

PHASES: tuple[tuple[Phase, str, Callable[[Ink], str]], ...] = (
    (DENSE, "dense backbone", lambda ink: ink.faint),
    (TOFE, "ToFe", lambda ink: ink.accent),
)
"""Phase, what charts call it, and its color."""
_DOTS = 20  # points: dots carry a series as short as that, a longer one is a line


def dot_size(points: Sequence[float]) -> float:
    """Of the markers of a series; 0 where the line alone says enough."""
    return 3.0 if len(points) <= _DOTS else 0.0


@dataclass(frozen=True)
class _Series:
    """Shares (0..1) over epochs: (epoch, share, spread or 0) each, in the color that `ink` picks."""

    label: str
    points: Sequence[tuple[int, float, float]]
    ink: Callable[[Ink], str]


def training_charts(history: History, budget: float | None) -> list[Chart]:
    """Accuracy of both phases; kept ratios per stage; cost against budget. A chart without numbers is omitted.

    Args:
        history: the training log.
        budget: the cost that training aimed at, as a share of the dense backbone's.
    """
    return [*_accuracy(history), *_kept(history), *_cost(history, budget)]


def _accuracy(history: History) -> Iterator[Chart]:
    series = [
        _Series(label, points, ink)
        for phase, label, ink in PHASES
        if (points := [(x, one.val_accuracy, 0.0) for x, one in history.phase(phase) if one.val_accuracy is not None])
    ]
    if series:
        text = "; ".join(
            f"{one.label} ends at {percent(one.points[-1][1])} after {count(len(one.points), 'epoch')}"
            for one in series
        )
        yield _over_epochs("training-accuracy", "Accuracy on held-out images", text, series, 1, len(history.epochs))


def _kept(history: History) -> Iterator[Chart]:
    epochs = [(x, epoch.keep_mean, epoch.keep_std or ()) for x, epoch in history.phase(TOFE) if epoch.keep_mean]
    stages = min((len(means) for _, means, _ in epochs), default=0)
    if not stages:
        return
    spreads = all(len(spread) >= stages for _, _, spread in epochs)
    series = [
        _Series(
            f"stage {stage}",
            [(x, means[stage], spread[stage] if spreads else 0.0) for x, means, spread in epochs],
            partial(Ink.series, number=stage),
        )
        for stage in range(stages)
    ]
    text = "At the end: " + ", ".join(f"{one.label} {percent(one.points[-1][1])}" for one in series)
    title = "Tokens kept" + ("; band: spread over images" if spreads else "")
    yield _over_epochs("training-kept", title, text, series, epochs[0][0], len(history.epochs))


def _cost(history: History, budget: float | None) -> Iterator[Chart]:
    points = [(x, epoch.macs_ratio, 0.0) for x, epoch in history.phase(TOFE) if epoch.macs_ratio is not None]
    if points:
        aim = f", with a budget of {percent(budget)}" if budget is not None else ""
        series = [_Series("ToFe", points, lambda ink: ink.accent)]
        title = "Cost (MACs), dense backbone = 100\u202f%"
        text = f"ends at {percent(points[-1][1])}{aim}"
        yield _over_epochs("training-cost", title, text, series, points[0][0], len(history.epochs), budget)


def _over_epochs(
    name: str, title: str, text: str, series: Sequence[_Series], first: int, last: int, budget: float | None = None
) -> Chart:
    """From epoch `first` to `last`, with a legend."""

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        entries = list[Entry]()
        for one in series:
            x, y, spread = zip(*one.points, strict=True)
            color, dot = one.ink(ink), dot_size(x)
            (line,) = axes.plot(x, y, color=color, linewidth=1.8, marker="o", markersize=dot)
            entries.append((line, one.label))
            if any(spread):
                axes.fill_between(x, np.subtract(y, spread), np.add(y, spread), color=color, alpha=0.13, linewidth=0)
        if budget is not None:
            limit = axes.axhline(budget, color=ink.warm, linewidth=1.2, linestyle=(0, (4, 3)))
            entries.append((limit, f"budget {percent(budget)}"))
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("epoch")
        margin = max(0.4, 0.02 * (last - first))
        axes.set_xlim(first - margin, last + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        legend_above(figure, entries)

    return Chart(name, title, text + ".", draw)
