"""The sections on agreement: the comparison with PyTorch, and what fixed keep counts cost.

Tables of all artifacts and of each; charts of the kept tokens of each image, and of accuracy against cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tofe_export.documents.verification import (
    LogitsDrift,
    StageDrift,
    ThresholdComparison,
    ThresholdStage,
    Verification,
)
from tofe_export.errors import count
from tofe_export.page.drawing import Chart, Entry, Ink, legend_above
from tofe_export.page.labels import distinct
from tofe_export.page.tables import Row, Table, Toned
from tofe_export.page.wording import NOTHING, cosine, difference, how, measured, percent

_BARS = 24  # more would be thinner than a line
_ROOM = 38  # characters of a line of the legend, which has the chart's whole width
# Training counted all held-out images, `verify` those it was given: nearly the same question, and named differently.
_DENSE = "dense backbone (training log)"
_OVERVIEW = (
    *("Artifact", "same class\nas PyTorch", "accuracy", "logits differ\nat most", "KL, nats\n(mean)"),
    *("least\noverlap", "verdict"),
)
_STAGES = (
    *("Token selection", "same tokens\nkept", "flipped,\nmargin", "largest\ndifference", "of frozen\ntokens"),
    "first module\nbeyond the limit",
)
_DRIFT = "Difference of the outputs", "largest", "mean", "smallest cosine", "KL, nats"


class _Point(NamedTuple):
    """A model: its cost as a share of the dense backbone's, and its accuracy."""

    label: str
    cost: float
    accuracy: float


def overview(artifacts: Sequence[Verification]) -> Table | None:
    """One row per artifact; None for a single one, which has its own tables."""
    if len(artifacts) < 2:
        return None
    return Table.of("All artifacts", _OVERVIEW, [_overview_row(artifact) for artifact in artifacts])


def intro(artifact: Verification) -> str:
    """What was compared, on what; or why it could not be."""
    if artifact.error:
        return artifact.error.message
    images = count(artifact.samples, "image") + (f" of {artifact.data}" if artifact.data else "")
    return f"{artifact.model} against {artifact.against or 'its checkpoint'}, on {images}."


def notes(artifact: Verification) -> Iterator[str]:
    """What a reader should know, such as limits that were the user's own."""
    yield from (f"Not checked: {sentence}" for sentence in artifact.unjudged)
    if artifact.stages_of == "twin":
        yield "The engine was built without taps: the stages are those of a twin that was built to compare."
    if artifact.error and artifact.error.next_step:
        yield f"Next: {artifact.error.next_step}"
    yield from (f"The limit {name} = {value:g} was set by hand." for name, value in artifact.overridden.items())


def tables(artifact: Verification) -> Iterator[Table]:
    """Answers, stages and outputs, as far as they were compared."""
    name = artifact.model
    if rows := _answers(artifact):
        yield Table.of(f"Answers of {name}", ("Answers", "PyTorch", "deployed"), rows, narrow=True)
    if artifact.stages:
        yield Table.of(f"Stages of {name}", _STAGES, [_stage(stage) for stage in artifact.stages])
    if rows := _outputs(artifact):
        yield Table.of(f"Differences of the outputs of {name}", _DRIFT, rows)


def threshold_table(comparison: ThresholdComparison) -> Table:
    """The fixed path beside the threshold path."""
    rows = []
    if comparison.accuracy is not None:
        accuracy = comparison.accuracy
        rows.append(Row("Accuracy", (percent(accuracy.threshold), percent(accuracy.fixed))))
    gmacs = comparison.gmacs
    threshold, fixed = (percent(value / gmacs.dense) for value in (gmacs.threshold, gmacs.fixed))
    rows.append(Row("Cost, dense = 100\u202f%", (f"{threshold} (mean)", fixed)))
    rows += [
        Row(f"Tokens kept in stage {stage.index}", (f"{stage.kept_mean:.1f} (mean)", str(stage.keep)))
        for stage in comparison.stages
    ]
    return Table.of("Threshold path and fixed path", ("", "threshold path", "fixed path"), rows, narrow=True)


def kept_charts(comparison: ThresholdComparison) -> list[Chart]:
    """A histogram per stage: how many tokens the threshold path keeps of each image; a line at the keep count."""
    return [_kept_chart(stage, comparison.samples) for stage in comparison.stages if stage.histogram]


def cost_chart(artifacts: Sequence[Verification], dense_accuracy: float | None) -> Chart | None:
    """Accuracy against cost; None for fewer than two points. A legend instead of labels, which would overlap."""
    points = _cost_points(artifacts, dense_accuracy)
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


def _kl(drift: LogitsDrift) -> str:
    """Documents of older versions do not say it."""
    return measured(drift.kl_mean) if "kl_mean" in drift.model_fields_set else NOTHING


def _overview_row(artifact: Verification) -> Row:
    verdict = {
        True: Toned("passed", "good"),
        False: Toned("cannot be used" if artifact.error else "failed", "bad"),
        None: Toned("not checked", "open"),
    }[artifact.passed]
    logits = artifact.logits
    values = (
        percent(artifact.top1_agreement),
        percent(artifact.accuracy.deployed if artifact.accuracy else None),
        measured(logits.max_abs) if logits else NOTHING,
        _kl(logits) if logits else NOTHING,
        percent(artifact.least_overlap, 2),
        verdict,
    )
    return Row(artifact.model, values, how(artifact.backend, artifact.precision))


def _answers(artifact: Verification) -> list[Row]:
    rows = []
    if artifact.accuracy is not None:
        reference, deployed = percent(artifact.accuracy.reference), percent(artifact.accuracy.deployed)
        rows.append(Row("Accuracy", (reference, deployed)))
    if artifact.top1_agreement is not None:
        rows.append(Row("Same class", (NOTHING, percent(artifact.top1_agreement))))
    return rows


def _stage(stage: StageDrift) -> Row:
    flipped = NOTHING if stage.flips is None else str(stage.flips.tokens)
    if stage.flips and stage.flips.tokens:
        flipped += f", to {difference(stage.flips.margin_max)}"
    values = (
        percent(stage.selection_overlap, 2),
        flipped,
        difference(stage.max_abs_same_selection if stage.finite else math.inf),
        difference(stage.of_frozen.max_abs),
        stage.first_module.name if stage.first_module else NOTHING,
    )
    return Row(f"Stage {stage.index}", values)


def _outputs(artifact: Verification) -> list[Row]:
    rows = []
    for name, logits in (
        ("Each its own selection", artifact.logits),
        ("PyTorch on the deployed selection", artifact.logits_same_selection),
    ):
        if logits is not None:
            differences = measured(logits.max_abs), measured(logits.mean_abs)
            rows.append(Row(name, (*differences, cosine(logits.cosine_min), _kl(logits))))
    for name, features in (
        ("Features on the deployed selection", artifact.features),
        ("Features, each its own selection", artifact.own_features),
    ):
        if features is not None:
            rows.append(Row(name, (measured(features.max_abs), *[NOTHING] * 3)))
    return rows


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


def _cost_points(artifacts: Sequence[Verification], dense_accuracy: float | None) -> list[_Point]:
    """What is known of accuracy and cost, the dense backbone first."""
    points = [] if dense_accuracy is None else [_Point(_DENSE, 1.0, dense_accuracy)]
    first = next((artifact.threshold for artifact in artifacts if artifact.threshold is not None), None)
    if first is not None and first.accuracy is not None:
        points.append(_Point("threshold path", first.gmacs.threshold / first.gmacs.dense, first.accuracy.threshold))
    return _joined(points) + _joined(
        [
            _Point(artifact.model, artifact.gmacs / artifact.dense_gmacs, artifact.accuracy.deployed)
            for artifact in artifacts
            if artifact.accuracy and artifact.gmacs and artifact.dense_gmacs
        ]
    )


def _joined(points: Sequence[_Point]) -> list[_Point]:
    """Models at the very same place as one point, or they would hide each other."""
    names: dict[tuple[float, float], list[str]] = {}
    for point in points:
        names.setdefault((point.cost, point.accuracy), []).append(point.label)
    return [_Point(", ".join(labels), *place) for place, labels in names.items()]
