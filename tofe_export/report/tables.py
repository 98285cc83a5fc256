"""The benchmark table as texts, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tofe_export.report import wording
from tofe_export.report.documents import Benchmark, BenchRow, Gate


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
    """Rows by batch size, dense first, the line that says what they were measured with, and the gate's judgement."""

    groups: list[tuple[int, list[BenchLine]]]
    machine: str
    gate: GateTable | None


def bench_table(found: Benchmark) -> BenchTable:
    """The benchmark, smallest batch first; within a batch, every dense row stands before what it was timed with."""
    ordered = sorted(found.rows, key=lambda row: row.batch)  # stable: the run's own order within a batch
    groups = [(batch, [_line(row) for row in rows]) for batch, rows in groupby(ordered, key=lambda row: row.batch)]
    gate = _gate(found.gate) if found.gate else None
    return BenchTable(groups, wording.machine_line(found.machine, found.settings), gate)


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
