"""Charts of what is lost: kept tokens of each image beside the fixed keep count, and accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tofe_export.documents.verification import ThresholdComparison, ThresholdStage, Verification
from tofe_export.errors import count
from tofe_export.page.drawing import Chart, Entry, Ink, legend_above
from tofe_export.page.labels import distinct
from tofe_export.page.wording import percent

_BARS = 24  # more would be thinner than a line
_ROOM = 38  # characters of a line of the legend, which has the chart's whole width
# Training counted all held-out images, `verify` those it was given: nearly the same question, and named differently.
_DENSE = "dense backbone (training log)"


@dataclass(frozen=True)
class Point:
    """A model: its cost as a share of the dense backbone's, and its accuracy."""

    label: str
    cost: float
    accuracy: float


def kept_charts(comparison: ThresholdComparison) -> list[Chart]:
    """A histogram per stage: how many tokens the threshold path keeps of each image; a line at the keep count."""
    return [_kept_chart(stage, comparison.samples) for stage in comparison.stages if stage.histogram]


def _kept_chart(stage: ThresholdStage, samples: int) -> Chart:
    histogram = sorted(stage.histogram)
    edges, heights = _binned(histogram)

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        axes.bar(edges, heights, width=0.9 * (edges[1] - edges[0] if len(edges) > 1 else 1), color=ink.faint, alpha=0.6)
        fixed = axes.axvline(stage.keep, color=ink.accent, linewidth=2)
        mean = axes.axvline(stage.kept_mean, color=ink.warm, linewidth=1.4, linestyle=(0, (4, 3)))
        axes.set_xlabel("tokens kept by threshold")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        legend_above(figure, [(fixed, f"fixed: {stage.keep}"), (mean, f"mean: {stage.kept_mean:.1f}")])

    title = f"Stage {stage.index}: images by tokens kept"
    text = (
        f"Of {count(samples, 'image')} {histogram[0][0]} to {histogram[-1][0]} tokens, {stage.kept_mean:.1f} on "
        f"average; {stage.keep} is fixed."
    )
    return Chart(f"kept-stage{stage.index}", title, text, draw, (3.4, 2.1))


def _binned(histogram: Sequence[tuple[int, int]]) -> tuple[list[float], list[int]]:
    """Middles and heights of at most `_BARS` bars of equal width."""
    least, most = histogram[0][0], histogram[-1][0]
    width = -(-(most - least + 1) // _BARS)
    bars = [0] * (-(-(most - least + 1) // width))
    for tokens, images in histogram:
        bars[(tokens - least) // width] += images
    return [least + width * place + (width - 1) / 2 for place in range(len(bars))], bars


def cost_points(artifacts: Sequence[Verification], dense_accuracy: float | None) -> list[Point]:
    """What is known of accuracy and cost, the dense backbone first."""
    points = [] if dense_accuracy is None else [Point(_DENSE, 1.0, dense_accuracy)]
    first = next((artifact.threshold for artifact in artifacts if artifact.threshold is not None), None)
    if first is not None and first.accuracy is not None:
        points.append(Point("threshold path", first.gmacs.threshold / first.gmacs.dense, first.accuracy.threshold))
    return _joined(points) + _joined(
        [
            Point(artifact.model, artifact.gmacs / artifact.dense_gmacs, artifact.accuracy.deployed)
            for artifact in artifacts
            if artifact.accuracy and artifact.gmacs and artifact.dense_gmacs
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
            color = ink.faint if point.label == _DENSE else ink.series(number - 1)
            (dot,) = axes.plot([point.cost], [point.accuracy], marks[number % len(marks)], color=color, markersize=7)
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

    text = "; ".join(f"{one.label}: {percent(one.accuracy)} at {percent(one.cost)} of the cost" for one in points)
    return Chart("cost-accuracy", "Accuracy against cost", text + ".", draw, (3.6, 2.1 + 0.18 * len(points)))
