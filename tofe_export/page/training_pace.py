"""How fast training was: images a second over the run, and medians of either phase. And how it ended, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from tofe_export.documents.history import DENSE, Ending, Pace, Phase, Stretch
from tofe_export.page.drawing import Chart, Entry, Ink, legend_above
from tofe_export.page.tables import Row, Table
from tofe_export.page.training_charts import PHASES, dot_size
from tofe_export.page.wording import NOTHING, digits, duration, per_second, percent, time_unit

_MOST_POINTS = 150  # of a phase: a run of days has a line every few seconds, and the chart has 300 pixels


class _Series(NamedTuple):
    """Images a second over the seconds that the run has trained."""

    label: str
    ink: Callable[[Ink], str]
    x: list[float]
    y: list[float]


def pace_chart(pace: Pace) -> Chart | None:
    """Images a second over the time in training; None without either."""
    series = list[_Series]()
    before = 0.0
    for phase, label, ink in PHASES:
        points, before = _points(pace, phase, before)
        if points:
            series.append(_Series(label, ink, *map(list, zip(*points, strict=True))))
    if not series or not before:
        return None
    unit, _, seconds = time_unit(before)

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        entries = list[Entry]()
        for one in series:
            x, dot = [value / seconds for value in one.x], dot_size(one.x)
            (line,) = axes.plot(x, one.y, color=one.ink(ink), linewidth=1.8, marker="o", markersize=dot)
            entries.append((line, one.label))
        axes.set_ylim(0, 1.08 * max(value for one in series for value in one.y))
        axes.set_xlim(-0.02 * before / seconds, 1.02 * before / seconds)
        axes.set_xlabel(f"{unit} of training")
        axes.xaxis.set_major_locator(MaxNLocator(nbins=7))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: per_second(value)))
        legend_above(figure, entries)

    text = "; ".join(f"{one.label}: median {per_second(median(one.y))}" for one in series)
    return Chart("training-pace", "Images per second in training", f"{text}.", draw)


def pace_table(pace: Pace) -> Table | None:
    """Medians over the stretches of either phase; a column that no line has is omitted. None without numbers."""
    columns: Sequence[tuple[str, Callable[[Phase], str]]] = (
        ("images\nper s", lambda phase: _of(pace, phase, lambda one: one.images_per_s, median, per_second)),
        ("waiting for\nimages", lambda phase: _of(pace, phase, lambda one: one.wait_share, median, percent)),
        ("GPU peak\nGiB", lambda phase: _of(pace, phase, lambda one: one.gpu_memory_gib, max, digits)),
        ("training\ntime", lambda phase: duration(sum(pace.seconds(phase))) if sum(pace.seconds(phase)) else NOTHING),
    )
    phases = [(phase, label) for phase, label, _ in PHASES if pace.phase(phase)]
    filled = [(head, value) for head, value in columns if any(value(phase) != NOTHING for phase, _ in phases)]
    if not filled:
        return None
    rows = [Row(label, [value(phase) for _, value in filled], dense=phase == DENSE) for phase, label in phases]
    return Table.of("Speed of training", ("phase", *(head for head, _ in filled)), rows, narrow=True)


def ending_facts(metrics: Mapping[str, object]) -> list[tuple[str, str]]:
    """(term, value) pairs of what a checkpoint says that training measured at its end, on held-out images."""
    end = Ending.model_validate(dict(metrics))
    pairs = list[tuple[str, str]]()
    if end.val_accuracy is not None:
        dense = f"; dense backbone {percent(end.dense_accuracy)}" if end.dense_accuracy is not None else ""
        pairs.append(("Accuracy", f"{percent(end.val_accuracy)}{dense}"))
    if end.macs_ratio is not None:
        budget = f"; budget {percent(end.macs_budget)}" if end.macs_budget is not None else ""
        pairs.append(("Cost (MACs)", f"{percent(end.macs_ratio)} of the dense backbone{budget}"))
    if end.keep_mean:
        spreads = end.keep_std if end.keep_std and len(end.keep_std) == len(end.keep_mean) else None
        kept = [percent(mean) + (f" ± {percent(spreads[stage])}" if spreads else "")
                for stage, mean in enumerate(end.keep_mean)]  # fmt: skip
        pairs.append(("Tokens kept per stage", ", ".join(kept) + (" (spread over images)" if spreads else "")))
    return pairs


def _points(pace: Pace, phase: Phase, begun: float) -> tuple[list[tuple[float, float]], float]:
    """(seconds of training, images a second), at most `_MOST_POINTS`; and when the phase ends."""
    ends, points = begun, list[tuple[float, float]]()
    for stretch, seconds in zip(pace.phase(phase), pace.seconds(phase), strict=True):
        ends += seconds
        if stretch.images_per_s is not None:
            points.append((ends, stretch.images_per_s))
    size = math.ceil(len(points) / _MOST_POINTS) or 1
    groups = [points[first : first + size] for first in range(0, len(points), size)]
    return [(median(x for x, _ in group), median(y for _, y in group)) for group in groups], ends


def _of(
    pace: Pace,
    phase: Phase,
    value: Callable[[Stretch], float | None],
    summary: Callable[[list[float]], float],
    words: Callable[[float], str],
) -> str:
    values = [number for stretch in pace.phase(phase) if (number := value(stretch)) is not None]
    return words(summary(values)) if values else NOTHING
