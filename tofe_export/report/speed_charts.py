"""Charts of the benchmark: the speed-up beside what the MACs promise, and latency with its percentiles."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tofe_export.report.documents import Benchmark, BenchRow
from tofe_export.report.drawing import Chart, Ink, draw_chart, legend_above
from tofe_export.report.wording import milliseconds, times

_SPREAD = 0.22  # between the models of one batch size, in rows


def speed_chart(found: Benchmark) -> Chart | None:
    """Speed-up of every deployed model at every batch size, with its interval, beside what its MACs promise."""
    rows = [row for row in found.rows if not row.dense]
    if not rows:
        return None
    names = list(dict.fromkeys(_who(row) for row in rows))
    batches = sorted({row.batch for row in rows})

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        for number, name in enumerate(names):
            mine = [row for row in rows if _who(row) == name]
            y = [batches.index(row.batch) + _SPREAD * (number - (len(names) - 1) / 2) for row in mine]
            for row, place in zip(mine, y, strict=True):
                if row.speedup_low is not None and row.speedup_high is not None:
                    interval = [row.speedup_low, row.speedup_high]
                    axes.plot(interval, [place, place], color=ink.series(number), linewidth=2.2, alpha=0.5)
            label = _label(name) if len(names) > 1 else None
            axes.plot([row.speedup for row in mine], y, "o", color=ink.series(number), markersize=6, label=label)
            promised = [row.speedup / row.realised_fraction for row in mine]
            axes.plot(promised, y, marker="|", markersize=13, markeredgewidth=1.4, color=ink.faint, linestyle="none")
        axes.axvline(1.0, color=ink.faint, linewidth=0.9)
        _by_batch(axes, batches)
        reach = max(max(row.speedup_high or row.speedup, row.speedup / row.realised_fraction) for row in rows)
        axes.set_xlim(min(0.8, *(row.speedup_low or row.speedup for row in rows)) - 0.05, reach * 1.06)
        axes.set_xlabel("times as fast as the dense backbone")
        if len(names) > 1:
            legend_above(figure)

    said = "; ".join(f"{row.name} at batch {row.batch}: {times(row.speedup)}" for row in rows)
    text = f"Dot: measured. Upright line: what the MACs promise. {said}"
    return draw_chart("speed-up", "Speed-up at each batch size", text, draw, _size(batches, names))


def latency_chart(found: Benchmark) -> Chart | None:
    """p50 to p99 of one call for every model, the dense backbone among them, on a logarithmic axis."""
    rows = [row for row in found.rows if row.p50_ms > 0]
    if not rows:
        return None
    names = list(dict.fromkeys(_who(row) for row in rows))
    batches = sorted({row.batch for row in rows})
    dense = {_who(row) for row in rows if row.dense}

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        ours = 0
        for number, name in enumerate(names):
            colour = ink.faint if name in dense else ink.series(ours)
            ours += name not in dense
            mine = [row for row in rows if _who(row) == name]
            for row in mine:
                place = batches.index(row.batch) + _SPREAD * (number - (len(names) - 1) / 2)
                axes.plot([row.p50_ms, row.p99_ms], [place, place], color=colour, linewidth=1.0, alpha=0.6)
                axes.plot([row.p50_ms, row.p90_ms], [place, place], color=colour, linewidth=3.2, alpha=0.6)
                axes.plot([row.p50_ms], [place], "o", color=colour, markersize=5)
                axes.plot([row.p99_ms], [place], "|", color=colour, markersize=7)
            label = "dense backbone" if name in dense else _label(name)
            axes.plot([], [], "o", color=colour, markersize=5, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        _by_batch(axes, batches)
        axes.set_xlabel("milliseconds a call (logarithmic)")
        figure.legend(loc="outside upper left", ncols=1 if len(names) < 3 else 2, frameon=False, handlelength=1.0)

    said = "; ".join(
        f"{row.name} at batch {row.batch}: {milliseconds(row.p50_ms)}, {milliseconds(row.p90_ms)} and "
        f"{milliseconds(row.p99_ms)} ms"
        for row in rows
    )
    text = f"Dot: p50. Thick line: to p90. Thin line: to p99. {said}"
    return draw_chart("latency", "Latency: p50, p90, p99", text, draw, _size(batches, names))


def _who(row: BenchRow) -> tuple[str, str, str]:
    return row.name, row.backend, row.precision


def _label(name: tuple[str, str, str]) -> str:
    return name[0] if len(name[0]) <= 24 else f"{name[0][:22]}…"


def _by_batch(axes: Axes, batches: list[int]) -> None:
    axes.set_yticks(range(len(batches)), [f"batch {batch}" for batch in batches])
    axes.set_ylim(len(batches) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x")


def _size(batches: list[int], names: list[tuple[str, str, str]]) -> tuple[float, float]:
    """Room for every batch size, and for a legend."""
    return 3.6, 1.15 + (0.2 + _SPREAD * len(names)) * len(batches)
