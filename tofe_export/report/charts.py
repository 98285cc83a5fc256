"""Charts of the training log: accuracy, kept tokens, cost."""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tofe_export.errors import count
from tofe_export.report.drawing import Chart, Entry, Ink, dot_size, draw_chart, legend_above
from tofe_export.report.history import DENSE, TOFE, History
from tofe_export.report.wording import percent


def training_charts(history: History, budget: float | None) -> list[Chart]:
    """Accuracy of both phases; kept ratios per stage; cost against budget. A chart without numbers is left out.

    Args:
        history: the training log.
        budget: cost that was asked for, as a share of the dense backbone's.
    """
    drawn = (_accuracy(history), _kept(history), _cost(history, budget))
    return [chart for chart in drawn if chart is not None]


def _accuracy(history: History) -> Chart | None:
    series: list[tuple[str, bool, list[int], list[float]]] = []
    for name, label in ((DENSE, "dense backbone"), (TOFE, "ToFe")):
        found = [(place, epoch.val_accuracy) for place, epoch in history.phase(name) if epoch.val_accuracy is not None]
        if found:
            series.append((label, name == TOFE, [place for place, _ in found], [value for _, value in found]))
    if not series:
        return None

    def draw(axes: Axes, ink: Ink) -> list[Entry]:
        return [(_line(axes, x, y, ink.accent if ours else ink.faint), label) for label, ours, x, y in series]

    said = [f"{label} ends at {percent(y[-1])} after {count(len(x), 'epoch')}" for label, _, x, y in series]
    return _over_epochs(
        "training-accuracy", "Accuracy on held-out images", draw, "; ".join(said), (1, len(history.epochs))
    )


def _kept(history: History) -> Chart | None:
    found = [(place, epoch) for place, epoch in history.phase(TOFE) if epoch.keep_mean]
    stages = min((len(epoch.keep_mean) for _, epoch in found), default=0)
    if not stages:
        return None
    x = [place for place, _ in found]

    spreads = all(len(epoch.keep_std) >= stages for _, epoch in found)

    def draw(axes: Axes, ink: Ink) -> list[Entry]:
        entries = list[Entry]()
        for stage in range(stages):
            colour = ink.series(stage)
            mean = [epoch.keep_mean[stage] for _, epoch in found]
            entries.append((_line(axes, x, mean, colour), f"stage {stage}"))
            if spreads:
                spread = [epoch.keep_std[stage] for _, epoch in found]
                low = [max(0.0, m - s) for m, s in zip(mean, spread, strict=True)]
                high = [min(1.0, m + s) for m, s in zip(mean, spread, strict=True)]
                axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        return entries

    last = found[-1][1].keep_mean
    said = "At the end: " + ", ".join(f"stage {stage} {percent(last[stage])}" for stage in range(stages))
    title = "Tokens kept" + ("; band: spread over images" if spreads else "")
    return _over_epochs("training-kept", title, draw, said, (x[0], len(history.epochs)))


def _cost(history: History, budget: float | None) -> Chart | None:
    found = [(place, epoch.macs_ratio) for place, epoch in history.phase(TOFE) if epoch.macs_ratio is not None]
    if not found:
        return None
    x, y = [place for place, _ in found], [ratio for _, ratio in found]

    def draw(axes: Axes, ink: Ink) -> list[Entry]:
        entries: list[Entry] = [(_line(axes, x, y, ink.accent), "ToFe")]
        if budget is not None:
            limit = axes.axhline(budget, color=ink.warm, linewidth=1.2, linestyle=(0, (4, 3)))
            entries.append((limit, f"budget {percent(budget)}"))
        return entries

    said = f"ends at {percent(y[-1])}" + (f", with a budget of {percent(budget)}" if budget is not None else "")
    title = "Cost (MACs), dense backbone = 100\u202f%"
    return _over_epochs("training-cost", title, draw, said, (x[0], len(history.epochs)))


def _line(axes: Axes, x: list[int], y: list[float], colour: str) -> Line2D:
    (line,) = axes.plot(x, y, color=colour, linewidth=1.8, marker="o", markersize=dot_size(len(x)))
    return line


def _over_epochs(
    name: str, title: str, fill: Callable[[Axes, Ink], list[Entry]], text: str, epochs: tuple[int, int]
) -> Chart:
    """Shares (0..1) over epochs, with a legend."""

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        entries = fill(axes, ink)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("epoch")
        margin = max(0.4, 0.02 * (epochs[1] - epochs[0]))
        axes.set_xlim(epochs[0] - margin, epochs[1] + margin)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        legend_above(figure, entries)

    return draw_chart(name, title, text + ".", draw)
