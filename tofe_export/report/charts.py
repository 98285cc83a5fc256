"""Charts as inline SVG: text stays text, colours are the page's own variables, the same numbers give the same bytes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tofe_export.report.documents import Benchmark
from tofe_export.report.history import DENSE, TOFE, History
from tofe_export.report.wording import percent, times

# Matplotlib wants real colours; each stands for a variable of the page's style sheet, which knows light and dark.
_INK, _FAINT, _GRID, _ACCENT, _WARM, _COOL = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
_VARIABLES = {
    _INK: "--ink",
    _FAINT: "--faint",
    _GRID: "--rule",
    _ACCENT: "--accent",
    _WARM: "--warm",
    _COOL: "--cool",
}
_STAGE_COLOURS = (_ACCENT, _WARM, _COOL)
_SIZE = 3.4, 2.5  # inches: about 330 CSS pixels, a phone's width or a third of the page, so that text keeps its size
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "tofe-export",
    "font.family": ["sans-serif"],
    "font.size": 9,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _FAINT,
    "axes.linewidth": 0.8,
    "text.color": _INK,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _FAINT,
    "ytick.labelcolor": _FAINT,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Chart:
    """A drawn chart.

    Attributes:
        title: short heading.
        svg: one <svg> element, safe to put in the page: nothing in it comes from a file.
        text: what it shows, in words, for those who cannot see it.
    """

    title: str
    svg: str
    text: str


def training_charts(history: History, budget: float | None) -> list[Chart]:
    """Accuracy of both phases; kept ratios per stage; cost against budget. A chart without numbers is left out.

    Args:
        history: the training log.
        budget: cost that was asked for, as a share of the dense backbone's.
    """
    drawn = (_accuracy(history), _kept(history), _cost(history, budget))
    return [chart for chart in drawn if chart is not None]


def _accuracy(history: History) -> Chart | None:
    series: list[tuple[str, str, list[int], list[float]]] = []
    for name, label, colour in ((DENSE, "dense backbone", _FAINT), (TOFE, "ToFe", _ACCENT)):
        found = [(place, epoch.val_accuracy) for place, epoch in history.phase(name) if epoch.val_accuracy is not None]
        if found:
            series.append((label, colour, [place for place, _ in found], [value for _, value in found]))
    if not series:
        return None

    def draw(axes: Axes) -> None:
        for label, colour, x, y in series:
            axes.plot(x, y, color=colour, linewidth=1.8, label=label, marker="o", markersize=_dot(len(x)))
        axes.set_ylim(0, 1.02)

    said = [f"{label} ends at {percent(y[-1])} after {len(x)} epochs" for label, _, x, y in series]
    return _chart("Accuracy on held-out images", draw, "; ".join(said), len(history.epochs))


def _kept(history: History) -> Chart | None:
    found = [(place, epoch) for place, epoch in history.phase(TOFE) if epoch.keep_mean]
    stages = min((len(epoch.keep_mean) for _, epoch in found), default=0)
    if not stages:
        return None
    x = [place for place, _ in found]

    def draw(axes: Axes) -> None:
        for stage in range(stages):
            colour = _STAGE_COLOURS[stage % len(_STAGE_COLOURS)]
            mean = [epoch.keep_mean[stage] for _, epoch in found]
            axes.plot(x, mean, color=colour, linewidth=1.8, label=f"stage {stage}", marker="o", markersize=_dot(len(x)))
            if all(len(epoch.keep_std) >= stages for _, epoch in found):
                spread = [epoch.keep_std[stage] for _, epoch in found]
                low = [max(0.0, m - s) for m, s in zip(mean, spread, strict=True)]
                high = [min(1.0, m + s) for m, s in zip(mean, spread, strict=True)]
                axes.fill_between(x, low, high, color=colour, alpha=0.13, linewidth=0)
        axes.set_ylim(0, 1.02)

    last = found[-1][1].keep_mean
    said = ", ".join(f"stage {stage} {percent(last[stage])}" for stage in range(stages))
    return _chart("Tokens kept; band: spread over images", draw, f"At the end: {said}", len(history.epochs), x[0])


def _cost(history: History, budget: float | None) -> Chart | None:
    found = [(place, epoch.macs_ratio) for place, epoch in history.phase(TOFE) if epoch.macs_ratio is not None]
    if not found:
        return None
    x, y = [place for place, _ in found], [ratio for _, ratio in found]

    def draw(axes: Axes) -> None:
        axes.plot(x, y, color=_ACCENT, linewidth=1.8, label="ToFe", marker="o", markersize=_dot(len(x)))
        if budget is not None:
            axes.axhline(budget, color=_WARM, linewidth=1.2, linestyle=(0, (4, 3)), label=f"budget {percent(budget)}")
        axes.set_ylim(0, 1.02)

    said = f"ends at {percent(y[-1])}" + (f", with a budget of {percent(budget)}" if budget is not None else "")
    return _chart("Cost (MACs), dense backbone = 100\u202f%", draw, said, len(history.epochs), x[0])


def speed_chart(found: Benchmark) -> Chart | None:
    """Speed-up of every deployed model at every batch size, with its interval, beside what its MACs promise."""
    rows = [row for row in found.rows if not row.dense]
    if not rows:
        return None
    names = list(dict.fromkeys((row.name, row.backend, row.precision) for row in rows))
    batches = sorted({row.batch for row in rows})

    def draw(axes: Axes) -> None:
        for number, name in enumerate(names):
            mine = [row for row in rows if (row.name, row.backend, row.precision) == name]
            colour = _STAGE_COLOURS[number % len(_STAGE_COLOURS)]
            y = [batches.index(row.batch) + 0.22 * (number - (len(names) - 1) / 2) for row in mine]
            for row, place in zip(mine, y, strict=True):
                if row.speedup_low is not None and row.speedup_high is not None:
                    axes.plot(
                        [row.speedup_low, row.speedup_high], [place, place], color=colour, linewidth=2.2, alpha=0.5
                    )
            axes.plot([row.speedup for row in mine], y, "o", color=colour, markersize=6)
            promised = [row.speedup / row.realised_fraction for row in mine]
            axes.plot(promised, y, marker="|", markersize=13, markeredgewidth=1.4, color=_FAINT, linestyle="none")
        axes.axvline(1.0, color=_FAINT, linewidth=0.9)
        axes.set_yticks(range(len(batches)), [f"batch {batch}" for batch in batches])
        axes.set_ylim(len(batches) - 0.4, -0.6)
        reach = max(
            [row.speedup_high or row.speedup for row in rows] + [row.speedup / row.realised_fraction for row in rows]
        )
        axes.set_xlim(min(0.8, *(row.speedup_low or row.speedup for row in rows)) - 0.05, reach * 1.06)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")

    said = "; ".join(f"{row.name} at batch {row.batch}: {times(row.speedup)}" for row in rows)
    drawn = _render(draw, (3.6, 0.95 + 0.42 * len(batches)), "times as fast as the dense backbone", None, None)
    return Chart("Speed-up at each batch size", drawn, f"Dot: measured. Upright line: what the MACs promise. {said}")


def _chart(title: str, draw: Callable[[Axes], None], text: str, last: int, first: int = 1) -> Chart:
    return Chart(title, _render(draw, _SIZE, "epoch", (first, last), PercentFormatter(1.0, decimals=0)), text + ".")


def _render(
    draw: Callable[[Axes], None],
    size: tuple[float, float],
    x_label: str,
    x_range: tuple[int, int] | None,
    y_format: PercentFormatter | None,
) -> str:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=True, axis="y")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(length=0)
        axes.set_xlabel(x_label)
        draw(axes)
        if x_range is not None:
            margin = max(0.4, 0.02 * (x_range[1] - x_range[0]))
            axes.set_xlim(x_range[0] - margin, x_range[1] + margin)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
        if y_format is not None:
            axes.yaxis.set_major_formatter(y_format)
            figure.legend(loc="outside upper left", ncols=3, frameon=False, handlelength=1.3, columnspacing=1.4)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(buffer.getvalue())


def _inline(document: str) -> str:
    """An SVG file to an element of the page: no prologue, no size of its own, the page's colours and fonts."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r"font: ([0-9.]+)px [^;\"]+", r"font-size: \1px", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg.replace("<svg ", '<svg aria-hidden="true" focusable="false" ', 1)


def _dot(points: int) -> float:
    """Marker size: dots carry a short series, a long one is a line."""
    return 3.0 if points <= 20 else 0.0


def unique_ids(charts: Sequence[Chart]) -> list[Chart]:
    """The charts with ids that stay apart when several stand in one page: matplotlib counts from 1 in each."""
    return [
        Chart(chart.title, _prefix_ids(chart.svg, f"c{number}-"), chart.text) for number, chart in enumerate(charts)
    ]


def _prefix_ids(svg: str, prefix: str) -> str:
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}", svg)
