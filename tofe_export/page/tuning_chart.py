"""The picture of a tuning: what each of the keep counts that were tried costs and gives, and the front among them."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from tofe_export.artifacts.file_kinds import TUNING_TITLE
from tofe_export.documents.tuning import TunedCounts, Tuning
from tofe_export.page.drawing import PAPER, Chart, Ink, drawing, write_png

_SIZE = (6.0, 3.6)  # inches


def tuning_chart(tuning: Tuning) -> Chart:
    """Score over latency; the counts that were picked are named."""
    what = score_name(tuning)
    text = f"{what} over milliseconds per call for {len(tuning.candidates)} sets of keep counts."
    return Chart("tuning", "Keep counts", text, lambda figure, axes, ink: _draw(tuning, axes, ink, what), _SIZE)


def write_tuning_picture(tuning: Tuning, path: Path) -> None:
    """As PNG, with a title by which another tuning knows that it may replace it; raises as `write_png` does."""
    chart = tuning_chart(tuning)
    with drawing(PAPER):
        figure = chart.figure(PAPER)
        write_png(figure, path, TUNING_TITLE)


def score_name(tuning: Tuning) -> str:
    """What keep counts were compared by."""
    return "Agreement" if any(one.accuracy is None for one in tuning.candidates) else "Accuracy"


def _draw(tuning: Tuning, axes: Axes, ink: Ink, what: str) -> None:
    timed = sorted((one for one in tuning.candidates if one.ms is not None), key=lambda one: one.ms or 0.0)
    best = [one for one in timed if one.on_front]
    axes.plot(*_points(best), color=ink.accent, linewidth=1.2, zorder=2)
    axes.scatter(*_points(timed), color=ink.faint, s=22, zorder=3)
    axes.scatter(*_points(best), color=ink.accent, s=30, zorder=4)
    if tuning.picked is not None:
        axes.scatter(*_points([tuning.picked]), facecolors="none", edgecolors=ink.warm, s=130, linewidths=1.8, zorder=5)
    for number, one in enumerate(best):
        below = number % 2  # neighbors on both sides of the line, so that names do not meet
        axes.annotate(
            ", ".join(map(str, one.keep)),
            (one.ms or 0.0, one.score),
            xytext=(6, -12 if below else 7),
            textcoords="offset points",
            color=ink.warm if one.keep == tuning.keep else ink.ink,
            fontsize=8,
        )
    goal = _goal_ms(tuning)
    if goal is not None:
        axes.axvline(goal, color=ink.warm, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1)
        axes.annotate("goal", (goal, 0.02), xycoords=("data", "axes fraction"), color=ink.warm, ha="right", fontsize=8)
    axes.margins(x=0.14, y=0.16)
    axes.set_xlabel(f"ms per call, batch {tuning.settings.batch}")
    axes.set_ylabel(what)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))


def _points(candidates: list[TunedCounts]) -> tuple[list[float], list[float]]:
    return [one.ms or 0.0 for one in candidates], [one.score for one in candidates]


def _goal_ms(tuning: Tuning) -> float | None:
    """The goal as a latency; None for a share of multiply-accumulates."""
    settings = tuning.settings
    if settings.speedup is not None and tuning.dense_ms is not None:
        return tuning.dense_ms / settings.speedup
    return settings.latency_ms
