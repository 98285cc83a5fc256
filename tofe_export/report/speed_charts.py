"""Charts of the benchmark: the speed-up beside what the MACs promise, and latency with its percentiles."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tofe_export.report.documents import Benchmark, BenchRow
from tofe_export.report.drawing import Chart, Entry, Ink, draw_chart, legend_above
from tofe_export.report.labels import distinct, short
from tofe_export.report.wording import how, milliseconds, times

_SPREAD = 0.22  # between the models of one batch size, in rows, at most
_ROOM = 38  # characters of a line of the legend, which has the chart's whole width
_NARROW = 20  # of one that has half of it


def speed_chart(found: Benchmark) -> Chart | None:
    """Speed-up of every deployed model at every batch size, with its interval, beside what its MACs promise."""
    rows = [row for row in found.rows if not row.dense]
    if not rows:
        return None
    names = list(dict.fromkeys(_who(row) for row in rows))
    batches, labels = sorted({row.batch for row in rows}), _labels(names)

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        entries = list[Entry]()
        for number, name in enumerate(names):
            mine = [row for row in rows if _who(row) == name]
            y = [batches.index(row.batch) + _spread(names) * (number - (len(names) - 1) / 2) for row in mine]
            for row, place in zip(mine, y, strict=True):
                if row.speedup_low is not None and row.speedup_high is not None:
                    interval = [row.speedup_low, row.speedup_high]
                    axes.plot(interval, [place, place], color=ink.series(number), linewidth=2.2, alpha=0.5)
            (dots,) = axes.plot([row.speedup for row in mine], y, "o", color=ink.series(number), markersize=6)
            entries.append((dots, labels[number]))
            promised = [row.speedup / row.realised_fraction for row in mine]
            axes.plot(promised, y, marker="|", markersize=13, markeredgewidth=1.4, color=ink.faint, linestyle="none")
        axes.axvline(1.0, color=ink.faint, linewidth=0.9)
        _by_batch(axes, batches)
        reach = max(max(row.speedup_high or row.speedup, row.speedup / row.realised_fraction) for row in rows)
        axes.set_xlim(min(0.8, *(row.speedup_low or row.speedup for row in rows)) - 0.05, reach * 1.06)
        axes.set_xlabel("times as fast as the dense backbone")
        if len(names) > 1:
            legend_above(figure, entries, _columns(names))

    said = "; ".join(f"{row.name} at batch {row.batch}: {times(row.speedup)}" for row in rows)
    text = f"Dot: measured. Upright line: what the MACs promise. {said}"
    return draw_chart("speed-up", "Speed-up at each batch size", text, draw, _size(batches, names))


def latency_chart(found: Benchmark) -> Chart | None:
    """p50 to p99 of one call for every model, the dense backbone among them, on a logarithmic axis."""
    rows = [row for row in found.rows if row.p50_ms > 0]
    if not rows:
        return None
    names = list(dict.fromkeys(_who(row) for row in rows))
    batches, labels = sorted({row.batch for row in rows}), _labels(names)
    dense = {_who(row) for row in rows if row.dense}

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        ours, entries = 0, list[Entry]()
        for number, name in enumerate(names):
            colour = ink.faint if name in dense else ink.series(ours)
            ours += name not in dense
            mine = [row for row in rows if _who(row) == name]
            for row in mine:
                place = batches.index(row.batch) + _spread(names) * (number - (len(names) - 1) / 2)
                axes.plot([row.p50_ms, row.p99_ms], [place, place], color=colour, linewidth=1.0, alpha=0.6)
                axes.plot([row.p50_ms, row.p90_ms], [place, place], color=colour, linewidth=3.2, alpha=0.6)
                axes.plot([row.p50_ms], [place], "o", color=colour, markersize=5)
                axes.plot([row.p99_ms], [place], "|", color=colour, markersize=7)
            (dot,) = axes.plot([], [], "o", color=colour, markersize=5)
            entries.append((dot, "dense backbone" if {name} == dense else labels[number]))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _by_batch(axes, batches)
        axes.set_xlabel("milliseconds a call (logarithmic)")
        legend_above(figure, entries, _columns(names))

    said = "; ".join(
        f"{row.name} at batch {row.batch}: {milliseconds(row.p50_ms)}, {milliseconds(row.p90_ms)} and "
        f"{milliseconds(row.p99_ms)} ms"
        for row in rows
    )
    text = f"Dot: p50. Thick line: to p90. Thin line: to p99. {said}"
    return draw_chart("latency", "Latency: p50, p90, p99", text, draw, _size(batches, names))


def _spread(names: list[tuple[str, str, str]]) -> float:
    """Rows between two models of one batch size: all of them stay within the batch size's own row."""
    return min(_SPREAD, 0.9 / len(names))


def _who(row: BenchRow) -> tuple[str, str, str]:
    return row.name, row.backend, row.precision


def _labels(names: list[tuple[str, str, str]]) -> list[str]:
    """Of the legend: the names, with what ran them where a name was run in several ways."""
    files = [name for name, _, _ in names]
    ways = [f" · {how(backend, precision)}" if files.count(name) > 1 else "" for name, backend, precision in names]
    return distinct([short(name) + way if way else name for name, way in zip(files, ways, strict=True)], _ROOM)


def _columns(names: list[tuple[str, str, str]]) -> int:
    """Two only where they are sure to fit side by side."""
    return 2 if len(names) > 2 and max(map(len, _labels(names))) <= _NARROW else 1


def _by_batch(axes: Axes, batches: list[int]) -> None:
    axes.set_yticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylim(len(batches) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def _size(batches: list[int], names: list[tuple[str, str, str]]) -> tuple[float, float]:
    """Room for every batch size, and for a legend of a line a name."""
    return 3.6, 1.0 + 0.17 * len(names) + (0.2 + _SPREAD * len(names)) * len(batches)
