"""The benchmark as tables, and sentences on how its figures are meant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tofe_export.documents.benchmark import Benchmark, BenchRow, Gate
from tofe_export.errors import count
from tofe_export.page import wording
from tofe_export.page.tables import Row, Table, Toned
from tofe_export.runners.base import in_host_memory

_FEW_ROUNDS = 10  # the bootstrap of a median of fewer gives intervals that are too narrow
_HEAD = (
    *("Model", "p50\nms", "p90\nms", "p99\nms", "images\nper s", "GMACs\nper image"),
    *("speed-up", "95\u202f%\ninterval", "realized\nfraction"),
)


@dataclass(frozen=True)
class GateSection:
    """What a recorded run says: a sentence, its rows, and notes."""

    intro: str
    table: Table
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BenchSection:
    """What the page shows of a benchmark.

    Attributes:
        table: rows by batch size, the dense backbone first.
        times: sentences on what the times include, for each place where models ran.
        percentiles, speedup: how the columns of those names are meant.
        machine: processor, threads, rounds.
        gate: None where no recorded run was given.
    """

    table: Table
    times: list[str]
    percentiles: str
    speedup: str
    machine: str
    gate: GateSection | None


def bench_section(benchmark: Benchmark) -> BenchSection:
    """The benchmark, smallest batch first; within a batch, every dense row stands before what it was timed with."""
    rows = sorted(benchmark.rows, key=lambda row: row.batch)  # stable: the run's own order within a batch
    groups = [
        (f"Batch {batch}", [_row(row) for row in group]) for batch, group in groupby(rows, key=lambda row: row.batch)
    ]
    return BenchSection(
        Table("Benchmark table", _HEAD, groups),
        _times(benchmark.rows),
        _percentiles(benchmark.rows),
        _speedup(benchmark),
        _machine(benchmark),
        _gate(benchmark.baseline) if benchmark.baseline else None,
    )


def _row(row: BenchRow) -> Row:
    speedup = Toned(wording.times(row.speedup), "loss" if row.speedup < 1 else "gain")
    values = (
        wording.digits(row.p50_ms),
        wording.digits(row.p90_ms),
        wording.digits(row.p99_ms),
        wording.per_second(row.images_per_s),
        wording.digits(row.gmacs),
        "1" if row.dense else speedup,
        "" if row.dense else wording.interval(row),
        wording.NOTHING if row.dense else f"{row.realised_fraction:.2f}",
    )
    return Row(row.name, values, wording.how(row.backend, row.precision), row.dense)


def _times(rows: Sequence[BenchRow]) -> list[str]:
    backends = list(dict.fromkeys(row.backend for row in rows))
    host = [backend or "unknown backend" for backend in backends if in_host_memory(backend)]
    gpu = [backend or "unknown backend" for backend in backends if not in_host_memory(backend)]
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


def _percentiles(rows: Sequence[BenchRow]) -> str:
    meaning = "half, 90 and 99 in 100 of the timed calls took at most this long."
    fewest = min((row.calls for row in rows if row.calls is not None), default=None)
    if fewest is None or fewest > 100:
        return meaning
    return f"{meaning} A row here has {count(fewest, 'call')}: its p99 lies between the two slowest."


def _speedup(benchmark: Benchmark) -> str:
    meaning = (
        "the dense backbone’s time ÷ the model’s, round by round; the median, with a bootstrap interval over rounds."
    )
    rounds = benchmark.settings.rounds
    if rounds is not None and rounds < _FEW_ROUNDS:
        meaning += f" From {count(rounds, 'round')} only, so the interval says little."
    mixed = dict.fromkeys(
        f"A model in {row.precision} was timed beside a dense backbone in {dense.precision}"
        for row in benchmark.rows
        if (dense := benchmark.dense_of(row)) is not None and not row.dense and row.precision != dense.precision
    )
    if mixed:
        meaning += f" {'; '.join(mixed)}: what the precision gains is in its speed-up and its realized fraction."
    return meaning


def _machine(benchmark: Benchmark) -> str:
    """What the figures depend on, in one line: processor, threads, rounds; what is not known is omitted."""
    machine, settings = benchmark.machine, benchmark.settings
    in_host = {in_host_memory(row.backend) for row in benchmark.rows}
    on_gpu = False in in_host
    parts = [machine.processor, machine.gpu if on_gpu else "", machine.system]
    if True in in_host and settings.threads is not None:
        parts.append(count(settings.threads, "thread") + (" on the processor" if on_gpu else ""))
    if settings.rounds is not None:
        parts.append(f"{count(settings.rounds, 'round')}, each model beside its dense backbone in turn")
    return " · ".join(part for part in parts if part)


def _gate(gate: Gate) -> GateSection:
    rows = []
    for row in gate.rows:
        now, change = wording.NOTHING, wording.NOTHING
        if row.speedup is not None:
            now, change = wording.times(row.speedup), f"{(row.speedup / row.baseline - 1) * 100:+.1f}\u202f%"
        verdict = Toned(row.verdict, {"held": "good", "unsure": "open"}.get(row.verdict, "bad"))
        values = str(row.batch), wording.times(row.baseline), now, change, verdict
        rows.append(Row(row.name, values, wording.how(row.backend, row.precision)))
    head = "Model", "batch", "before", "now", "change", "verdict"
    intro = (
        f"Speed-ups against {gate.file}, with at most {wording.percent(gate.max_regression)} of one to lose: "
        f"{'all held' if gate.passed else 'not all held'}."
    )
    return GateSection(intro, Table.of("Speed-ups against the recorded run", head, rows), gate.notes)
