"""Charts of what is lost: kept tokens of each image beside the fixed keep count, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tofe_export.errors import count
from tofe_export.report.drawing import Chart, Entry, Ink, draw_chart, legend_above
from tofe_export.report.labels import distinct
from tofe_export.report.verification import Evidence, Threshold, ThresholdStage
from tofe_export.report.wording import percent

_BARS = 24  # more would be thinner than a line
_ROOM = 38  # characters of a line of the legend, which has the chart's whole width
# Training counted all held-out images, `verify` those it was given: nearly the same question, and said to be another.
_DENSE = "dense backbone (training log)"


@dataclass(frozen=True)
class Point:
    """A model: its cost as a share of the dense backbone's, and its accuracy."""

    label: str
    cost: float
    accuracy: float


def kept_charts(found: Threshold) -> list[Chart]:
    """One histogram a stage: how many tokens the threshold path keeps of each image; a line at the fixed keep count."""
    return [_kept_chart(stage, found.samples) for stage in found.stages if stage.histogram]


def _kept_chart(stage: ThresholdStage, samples: int) -> Chart:
    edges, heights = _binned(stage)

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        axes.bar(edges, heights, width=0.9 * (edges[1] - edges[0] if len(edges) > 1 else 1), color=ink.faint, alpha=0.6)
        fixed = axes.axvline(stage.keep, color=ink.accent, linewidth=2)
        mean = axes.axvline(stage.mean, color=ink.warm, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.set_xlabel("tokens kept by threshold")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend_above(figure, [(fixed, f"fixed: {stage.keep}"), (mean, f"mean: {stage.mean:.1f}")])

    least, most = stage.histogram[0][0], stage.histogram[-1][0]
    text = f"Of {count(samples, 'image')} {least} to {most} tokens, {stage.mean:.1f} on average; {stage.keep} is fixed."
    return draw_chart(f"kept-stage{stage.index}", f"Stage {stage.index}: images by tokens kept", text, draw, (3.4, 2.1))


def _binned(stage: ThresholdStage) -> tuple[list[float], list[int]]:
    """Middles and heights of at most `_BARS` bars of equal width."""
    least, most = stage.histogram[0][0], stage.histogram[-1][0]
    width = -(-(most - least + 1) // _BARS)
    bars = [0] * (-(-(most - least + 1) // width))
    for tokens, images in stage.histogram:
        bars[(tokens - least) // width] += images
    return [least + width * place + (width - 1) / 2 for place in range(len(bars))], bars


def cost_points(evidence: Evidence | None, dense_accuracy: float | None) -> list[Point]:
    """What is known of accuracy and cost, the dense backbone first."""
    points = [] if dense_accuracy is None else [Point(_DENSE, 1.0, dense_accuracy)]
    artefacts = evidence.artefacts if evidence else ()
    first = next((found.threshold for found in artefacts if found.threshold is not None), None)
    if first is not None and first.accuracy_threshold is not None and first.gmacs_dense:
        points.append(Point("threshold path", first.gmacs_threshold / first.gmacs_dense, first.accuracy_threshold))
    return _joined(points) + _joined(
        [
            Point(found.model, found.gmacs / found.dense_gmacs, found.accuracy_deployed)
            for found in artefacts
            if found.accuracy_deployed is not None and found.gmacs is not None and found.dense_gmacs
        ]
    )


def _joined(points: Sequence[Point]) -> list[Point]:
    """Models at the very same place as one point, or they would hide each other."""
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        names.setdefault((point.cost, point.accuracy), []).append(point.label)
    return [Point(", ".join(labels), *place) for place, labels in names.items()]


def cost_chart(points: Sequence[Point]) -> Chart | None:
    """Accuracy against cost; None for fewer than two points. A legend instead of labels, which would overlap."""
    if len(points) < 2:
        return None
    labels = distinct([point.label for point in points], _ROOM)

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        marks, entries = "Dos^vP*", list[Entry]()
        for number, point in enumerate(points):
            colour = ink.faint if point.label == _DENSE else ink.series(number - 1)
            mark = marks[number % len(marks)]
            (dot,) = axes.plot([point.cost], [point.accuracy], mark, color=colour, markersize=7)
            entries.append((dot, labels[number]))
        low, high = (bound(point.accuracy for point in points) for bound in (min, max))
        margin = max(0.01, 0.25 * (high - low))
        axes.set_ylim(max(0.0, low - margin), min(1.005, high + margin))
        axes.set_xlim(0, max(1.08, 1.04 * max(point.cost for point in points)))
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=1 if high - low < 0.05 else 0))
        axes.set_xlabel("cost (MACs), dense backbone = 100\u202f%")
        legend_above(figure, entries, columns=1)

    said = "; ".join(
        f"{point.label}: {percent(point.accuracy)} at {percent(point.cost)} of the cost" for point in points
    )
    height = 2.1 + 0.18 * len(points)
    return draw_chart("cost-accuracy", "Accuracy against cost", said + ".", draw, (3.6, height))
