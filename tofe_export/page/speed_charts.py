"""Charts of the benchmark: the speed-up beside what the MACs promise, and latency with its percentiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tofe_export.documents.benchmark import Benchmark, BenchRow
from tofe_export.page.drawing import Chart, Entry, Ink, legend_above
from tofe_export.page.labels import distinct, short
from tofe_export.page.wording import digits, how, times

_SPREAD = 0.22  # between the models of one batch size, in rows, at most
_ROOM = 38  # characters of a line of the legend, which has the chart's whole width
_NARROW = 20  # of one that has half of it


class _Lanes:
    """The vertical axis: a row for each batch size, and in it a lane for each model.

    Attributes:
        batches: batch sizes, smallest above.
        subjects: models, and what ran them; `labels` are their names for the legend.
    """

    def __init__(self, rows: Sequence[BenchRow]) -> None:
        self._rows = rows
        self.batches = sorted({row.batch for row in rows})
        self.subjects = list(dict.fromkeys(row.subject for row in rows))
        files = [name for name, _, _ in self.subjects]
        several = [files.count(name) > 1 for name in files]
        self.labels = distinct(
            [
                f"{short(name)} · {how(*way)}" if again and how(*way) else name
                for (name, *way), again in zip(self.subjects, several, strict=True)
            ],
            _ROOM,
        )

    def of(self, number: int) -> Iterator[tuple[BenchRow, float]]:
        """(row, height of its lane) of one subject; all lanes of a batch size stay within its row."""
        spread = min(_SPREAD, 0.9 / len(self.subjects))
        for row in self._rows:
            if row.subject == self.subjects[number]:
                yield row, self.batches.index(row.batch) + spread * (number - (len(self.subjects) - 1) / 2)

    def finish(self, figure: Figure, axes: Axes, entries: Sequence[Entry]) -> None:
        """Names the rows, and writes the legend: in two columns only where they are sure to fit side by side."""
        axes.set_yticks(range(len(self.batches)), [f"batch {batch}" for batch in self.batches])
        axes.set_ylim(len(self.batches) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        if len(entries) > 1:
            legend_above(figure, entries, 2 if len(entries) > 2 and max(map(len, self.labels)) <= _NARROW else 1)

    @property
    def size(self) -> tuple[float, float]:
        """Inches: room for every batch size, and for a line per name in the legend."""
        lanes = len(self.subjects)
        return 3.6, 1.0 + 0.17 * lanes + (0.2 + _SPREAD * lanes) * len(self.batches)


def speed_chart(benchmark: Benchmark) -> Chart | None:
    """Speed-up of every deployed model at every batch size, with its interval, beside what its MACs promise."""
    rows = [row for row in benchmark.rows if not row.dense]
    if not rows:
        return None
    lanes = _Lanes(rows)

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        entries = list[Entry]()
        for number, label in enumerate(lanes.labels):
            color = ink.series(number)
            for row, y in lanes.of(number):
                if row.speedup_low is not None and row.speedup_high is not None:
                    axes.plot([row.speedup_low, row.speedup_high], [y, y], color=color, linewidth=2.2, alpha=0.5)
                (dot,) = axes.plot([row.speedup], [y], "o", color=color, markersize=6)
                axes.plot([_promised(row)], [y], "|", color=ink.faint, markersize=13, markeredgewidth=1.4)
            entries.append((dot, label))
        axes.axvline(1.0, color=ink.faint, linewidth=0.9)
        reach = max(max(row.speedup_high or row.speedup, _promised(row)) for row in rows)
        axes.set_xlim(min(0.8, *(row.speedup_low or row.speedup for row in rows)) - 0.05, reach * 1.06)
        axes.set_xlabel("times as fast as the dense backbone")
        lanes.finish(figure, axes, entries)

    values = "; ".join(f"{row.name} at batch {row.batch}: {times(row.speedup)}" for row in rows)
    text = f"Dot: measured. Upright line: what the MACs promise. {values}"
    return Chart("speed-up", "Speed-up at each batch size", text, draw, lanes.size)


def latency_chart(benchmark: Benchmark) -> Chart | None:
    """p50 to p99 of one call for every model, the dense backbone among them, on a logarithmic axis."""
    rows = benchmark.rows
    if not rows:
        return None
    lanes, dense = _Lanes(rows), {row.subject for row in rows if row.dense}

    def draw(figure: Figure, axes: Axes, ink: Ink) -> None:
        deployed, entries = 0, list[Entry]()
        for number, subject in enumerate(lanes.subjects):
            color = ink.faint if subject in dense else ink.series(deployed)
            deployed += subject not in dense
            for row, y in lanes.of(number):
                axes.plot([row.p50_ms, row.p99_ms], [y, y], color=color, linewidth=1.0, alpha=0.6)
                axes.plot([row.p50_ms, row.p90_ms], [y, y], color=color, linewidth=3.2, alpha=0.6)
                (dot,) = axes.plot([row.p50_ms], [y], "o", color=color, markersize=5)
                axes.plot([row.p99_ms], [y], "|", color=color, markersize=7)
            entries.append((dot, "dense backbone" if {subject} == dense else lanes.labels[number]))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("milliseconds per call (logarithmic)")
        lanes.finish(figure, axes, entries)

    values = "; ".join(
        f"{row.name} at batch {row.batch}: {digits(row.p50_ms)}, {digits(row.p90_ms)} and {digits(row.p99_ms)} ms"
        for row in rows
    )
    text = f"Dot: p50. Thick line: to p90. Thin line: to p99. {values}"
    return Chart("latency", "Latency: p50, p90, p99", text, draw, lanes.size)


def _promised(row: BenchRow) -> float:
    """The speed-up if every saved operation were saved time."""
    return row.speedup / row.realised_fraction
