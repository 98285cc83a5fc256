"""The section on speed: the benchmark as a table, sentences on how its figures are meant, and charts.

The charts show the speed-up beside what the MACs promise, and latency with its percentiles.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from tofe_export.documents.benchmark import Benchmark, BenchRow, Gate
from tofe_export.errors import count
from tofe_export.page import wording
from tofe_export.page.drawing import Chart, Entry, Ink, legend_above
from tofe_export.page.labels import distinct, short
from tofe_export.page.tables import Row, Table, Toned
from tofe_export.runners.base import in_host_memory

_SPREAD = 0.22  # between the models of one batch size, in rows, at most
_ROOM = 38  # characters of a line of the legend, which has the chart's whole width
_NARROW = 20  # of one that has half of it
_HEAD = (
    *("Model", "p50\nms", "p90\nms", "p99\nms", "images\nper s", "GMACs\nper image"),
    *("speed-up", "95\u202f%\ninterval", "realized\nfraction", "efficiency"),
)


def bench_table(benchmark: Benchmark) -> Table:
    """The benchmark, smallest batch first; within a batch, every dense row stands before what it was timed with.

    Columns in which no row has anything are omitted.
    """
    rows = sorted(benchmark.rows, key=lambda row: row.batch)  # stable: the run's own order within a batch
    groups = [(f"Batch {batch}", [*map(_row, group)]) for batch, group in groupby(rows, key=lambda row: row.batch)]
    lines = [line for _, group in groups for line in group]
    filled = [place for place in range(len(_HEAD) - 1) if any(line.values[place] for line in lines)]
    groups = [
        (heading, [replace(line, values=[line.values[place] for place in filled]) for line in group])
        for heading, group in groups
    ]
    return Table("Benchmark table", [_HEAD[0], *(_HEAD[1 + place] for place in filled)], groups)


def method(benchmark: Benchmark) -> str:
    """How models and their dense backbones were run."""
    if benchmark.settings.processes is None:
        return "Each model and its dense backbone, run in turn in one process."
    warm_up = benchmark.settings.warm_up_calls
    unmeasured = f" after {count(warm_up, 'call')} that are not measured" if warm_up else ""
    return f"Each model and its dense backbone, run in turn, several calls of one at a time{unmeasured}."


def has_efficiency(benchmark: Benchmark) -> bool:
    """Whether a row has one."""
    return any(row.efficiency is not None for row in benchmark.rows)


def times(benchmark: Benchmark) -> list[str]:
    """What the times include, for each place where models ran."""
    backends = dict.fromkeys(row.backend or "unknown backend" for row in benchmark.rows)
    host = [backend for backend in backends if in_host_memory(backend)]
    gpu = [backend for backend in backends if not in_host_memory(backend)]
    sentences = []
    if host:
        sentences.append(f"{', '.join(host)}: from a float32 batch in host memory to the outputs in host memory.")
    if gpu:
        graph = any(backend.startswith("tensorrt") for backend in gpu)
        sentences.append(
            f"{', '.join(gpu)}: the batch is in GPU memory already and the outputs stay there; copies are not included."
            + (" A call of an engine is the replay of a CUDA graph." if graph else "")
        )
    return sentences


def percentiles(benchmark: Benchmark) -> str:
    """How the columns p50, p90 and p99 are meant."""
    meaning = "half, 90 and 99 in 100 of the timed calls took at most this long."
    if benchmark.settings.processes is not None:
        return f"{meaning} p90 takes 100 calls or more, p99 1000."
    fewest = min((row.calls for row in benchmark.rows if row.calls is not None), default=None)
    if fewest is None or fewest > 100:
        return meaning
    return f"{meaning} A row here has {count(fewest, 'call')}: its p99 lies between the two slowest."


def speedup(benchmark: Benchmark) -> str:
    """How the column of speed-ups is meant."""
    meaning, processes = "the dense backbone’s time ÷ the model’s, round by round; ", benchmark.settings.processes
    if processes is None:
        meaning += "the interval is over the rounds of one process, and processes differ by more."
    elif processes == 1:
        meaning += "the median over rounds. One process has no interval."
    else:
        meaning += f"the mean of {processes} processes, with an interval over processes."
    mixed = dict.fromkeys(
        f"A model in {row.precision} was timed beside a dense backbone in {dense.precision}"
        for row in benchmark.rows
        if (dense := benchmark.dense_of(row)) is not None and not row.dense and row.precision != dense.precision
    )
    if mixed:
        meaning += f" {'; '.join(mixed)}: what the precision gains is in its speed-up and its realized fraction."
    return meaning


def machine(benchmark: Benchmark) -> str:
    """What the figures depend on, in one line: processor, threads, rounds; what is not known is omitted."""
    computer, settings = benchmark.machine, benchmark.settings
    in_host = {in_host_memory(row.backend) for row in benchmark.rows}
    on_gpu = False in in_host
    parts = [computer.processor, computer.gpu if on_gpu else "", computer.system]
    if True in in_host and settings.threads is not None:
        parts.append(count(settings.threads, "thread") + (" on the processor" if on_gpu else ""))
    if settings.rounds is not None:
        often = "" if settings.processes is None else f" in each of {_processes(settings.processes)}"
        parts.append(f"{count(settings.rounds, 'round')}{often}, each model beside its dense backbone")
    return " · ".join(part for part in parts if part)


def gate_table(gate: Gate) -> Table:
    """Speed-ups beside those of a recorded run."""
    rows = []
    for row in gate.rows:
        now, change = wording.NOTHING, wording.NOTHING
        if row.speedup is not None:
            now, change = wording.times(row.speedup), f"{(row.speedup / row.baseline - 1) * 100:+.1f}\u202f%"
        verdict = Toned(row.verdict, {"held": "good", "unsure": "open"}.get(row.verdict, "bad"))
        values = str(row.batch), wording.times(row.baseline), now, change, verdict
        rows.append(Row(row.name, values, wording.how(row.backend, row.precision)))
    head = "Model", "batch", "before", "now", "change", "verdict"
    return Table.of("Speed-ups against the recorded run", head, rows)


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

    values = "; ".join(f"{row.name} at batch {row.batch}: {wording.times(row.speedup)}" for row in rows)
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
                if row.p99_ms is not None:
                    axes.plot([row.p50_ms, row.p99_ms], [y, y], color=color, linewidth=1.0, alpha=0.6)
                    axes.plot([row.p99_ms], [y], "|", color=color, markersize=7)
                if row.p90_ms is not None:
                    axes.plot([row.p50_ms, row.p90_ms], [y, y], color=color, linewidth=3.2, alpha=0.6)
                (dot,) = axes.plot([row.p50_ms], [y], "o", color=color, markersize=5)
            entries.append((dot, "dense backbone" if {subject} == dense else lanes.labels[number]))
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("milliseconds per call (logarithmic)")
        lanes.finish(figure, axes, entries)

    values = "; ".join(
        f"{row.name} at batch {row.batch}: "
        + ", ".join(f"{name} {wording.digits(value)} ms" for name, value in _percentiles(row).items())
        for row in rows
    )
    known = list(dict.fromkeys(name for row in rows for name in _percentiles(row)))
    lines = {"p50": "Dot: p50.", "p90": "Thick line: to p90.", "p99": "Thin line: to p99."}
    text = " ".join([*(lines[name] for name in known), values])
    return Chart("latency", f"Latency: {', '.join(known)}", text, draw, lanes.size)


def _row(row: BenchRow) -> Row:
    speedup = Toned(wording.times(row.speedup), "loss" if row.speedup < 1 else "gain")
    values = (
        wording.digits(row.p50_ms),
        "" if row.p90_ms is None else wording.digits(row.p90_ms),
        "" if row.p99_ms is None else wording.digits(row.p99_ms),
        wording.per_second(row.images_per_s),
        wording.digits(row.gmacs),
        "1" if row.dense else speedup,
        "" if row.dense else wording.interval(row),
        wording.NOTHING if row.dense else f"{row.realised_fraction:.2f}",
        "" if row.efficiency is None else wording.percent(row.efficiency),
    )
    return Row(row.name, values, wording.how(row.backend, row.precision), row.dense)


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
        times = Counter(name for name, _, _ in self.subjects)
        labels = []
        for name, *way in self.subjects:
            how = wording.how(*way) if times[name] > 1 else ""
            labels.append(f"{short(name)} · {how}" if how else name)
        self.labels = distinct(labels, _ROOM)

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


def _percentiles(row: BenchRow) -> dict[str, float]:
    """Those that are known, by name."""
    every = {"p50": row.p50_ms, "p90": row.p90_ms, "p99": row.p99_ms}
    return {name: value for name, value in every.items() if value is not None}


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _promised(row: BenchRow) -> float:
    """The speed-up if every saved operation were saved time."""
    return row.speedup / row.realised_fraction
