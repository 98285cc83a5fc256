"""The benchmark table as texts, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tofe_export.errors import count
from tofe_export.report import wording
from tofe_export.report.documents import Benchmark, BenchRow, Gate
from tofe_export.runners.base import in_host_memory

_FEW_ROUNDS = 10  # the bootstrap of a median of fewer gives intervals that are too narrow


@dataclass(frozen=True)
class BenchLine:
    """One row of the benchmark table; `interval` is "" where there is none."""

    name: str
    how: str
    dense: bool
    slower: bool
    p50: str
    p90: str
    p99: str
    images_per_s: str
    gmacs: str
    speedup: str
    interval: str
    realised: str


@dataclass(frozen=True)
class GateTable:
    """Against a recorded run: a sentence, (model, how, batch, before, now, change, verdict, tone), and notes."""

    intro: str
    rows: list[tuple[str, str, str, str, str, str, str, str]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BenchTable:
    """Rows by batch size, dense first, what they mean, what they were measured with, and the gate's judgement.

    Attributes:
        groups: (batch size, rows).
        times: sentences on what the times include, for each place where models ran.
        percentiles, speedup: how the columns of those names are meant.
        machine: processor, threads, rounds.
        gate: None where no recorded run was given.
    """

    groups: list[tuple[int, list[BenchLine]]]
    times: list[str]
    percentiles: str
    speedup: str
    machine: str
    gate: GateTable | None


def bench_table(found: Benchmark) -> BenchTable:
    """The benchmark, smallest batch first; within a batch, every dense row stands before what it was timed with."""
    ordered = sorted(found.rows, key=lambda row: row.batch)  # stable: the run's own order within a batch
    groups = [(batch, [_line(row) for row in rows]) for batch, rows in groupby(ordered, key=lambda row: row.batch)]
    gate = _gate(found.gate) if found.gate else None
    places = {in_host_memory(row.backend) for row in found.rows}
    machine = wording.machine_line(found.machine, found.settings, on_cpu=True in places, on_gpu=False in places)
    return BenchTable(groups, _times(found.rows), _percentiles(found.rows), _speedup(found), machine, gate)


def _times(rows: Sequence[BenchRow]) -> list[str]:
    backends = list(dict.fromkeys(row.backend for row in rows))
    host = [backend or "unknown backend" for backend in backends if in_host_memory(backend)]
    gpu = [backend or "unknown backend" for backend in backends if not in_host_memory(backend)]
    said = []
    if host:
        said.append(f"{', '.join(host)}: from a float32 batch in host memory to the outputs in host memory.")
    if gpu:
        graph = any(backend.startswith("tensorrt") for backend in gpu)
        said.append(
            f"{', '.join(gpu)}: the batch is in GPU memory already and the outputs stay there; copies are not included."
            + (" A call of an engine is the replay of a CUDA graph." if graph else "")
        )
    return said


def _percentiles(rows: Sequence[BenchRow]) -> str:
    said = "half, nine tenths, 99 in 100 of the timed calls took no longer than this."
    fewest = min((row.calls for row in rows if row.calls is not None), default=None)
    if fewest is None or fewest > 100:
        return said
    return f"{said} A row here has {count(fewest, 'call')}: its p99 is between the slowest two."


def _speedup(found: Benchmark) -> str:
    said = "the dense backbone’s time ÷ the model’s, round by round; the median, with a bootstrap interval over rounds."
    rounds = found.rounds()
    if rounds is not None and rounds < _FEW_ROUNDS:
        said += f" Of {count(rounds, 'round')} only, so the interval says little."
    mixed = dict.fromkeys(
        f"A model in {row.precision} was timed beside a dense backbone in {dense.precision}"
        for row in found.rows
        if (dense := found.baseline(row)) is not None and not row.dense and row.precision != dense.precision
    )
    if mixed:
        said += f" {'; '.join(mixed)}: what the precision gains is in its speed-up and its realised fraction."
    return said


def _line(row: BenchRow) -> BenchLine:
    interval = ""
    if not row.dense and row.speedup_low is not None and row.speedup_high is not None:
        interval = wording.span(row.speedup_low, row.speedup_high)
    return BenchLine(
        name=row.name,
        how=wording.how(row.backend, row.precision),
        dense=row.dense,
        slower=row.speedup < 1,
        p50=wording.milliseconds(row.p50_ms),
        p90=wording.milliseconds(row.p90_ms),
        p99=wording.milliseconds(row.p99_ms),
        images_per_s=wording.per_second(row.images_per_s),
        gmacs=wording.gmacs(row.gmacs),
        speedup="1" if row.dense else wording.times(row.speedup),
        interval=interval,
        realised="–" if row.dense else f"{row.realised_fraction:.2f}",
    )


def _gate(found: Gate) -> GateTable:
    rows = []
    for row in found.rows:
        now = "–" if row.speedup is None else wording.times(row.speedup)
        change = "–" if row.speedup is None else f"{(row.speedup / row.baseline - 1) * 100:+.1f}\u202f%"
        tone = {"held": "good", "unsure": "open"}.get(row.verdict, "bad")
        how, before = wording.how(row.backend, row.precision), wording.times(row.baseline)
        rows.append((row.name, how, str(row.batch), before, now, change, row.verdict, tone))
    intro = f"Speed-ups against {found.file}, where {wording.percent(found.max_regression)} may be lost: " + (
        "all held." if found.passed else "not all held."
    )
    return GateTable(intro, rows, found.notes)
