"""The benchmark and parity tables as texts, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from tofe_export.report import wording
from tofe_export.report.documents import Benchmark, BenchRow, Drift, Verification


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
class BenchTable:
    """Rows by batch size, dense first, and the line that says what they were measured with."""

    groups: list[tuple[int, list[BenchLine]]]
    machine: str


@dataclass(frozen=True)
class ParityTable:
    """Rows of the parity tables.

    Attributes:
        passed: no limit was broken.
        intro: what was compared, on what.
        summary: (what, reference, deployed) of whole-model figures.
        drift: (which selection, max, mean, cosine) of the logits.
        stages: (stage, overlap, largest difference).
        failures: sentences.
    """

    passed: bool
    intro: str
    summary: list[tuple[str, str, str]]
    drift: list[tuple[str, str, str, str]]
    stages: list[tuple[str, str, str]]
    failures: tuple[str, ...]


def bench_table(found: Benchmark) -> BenchTable:
    """The benchmark, smallest batch first; within a batch, every dense row stands before what it was timed with."""
    ordered = sorted(found.rows, key=lambda row: row.batch)  # stable: the run's own order within a batch
    groups = [(batch, [_line(row) for row in rows]) for batch, rows in groupby(ordered, key=lambda row: row.batch)]
    return BenchTable(groups, wording.machine_line(found.machine, found.settings))


def parity_table(found: Verification) -> ParityTable:
    """The comparison with PyTorch."""
    summary = []
    if found.accuracy_reference is not None and found.accuracy_deployed is not None:
        reference, deployed = wording.percent(found.accuracy_reference), wording.percent(found.accuracy_deployed)
        summary.append(("Accuracy", reference, deployed))
    if found.top1_agreement is not None:
        summary.append(("Same class", "–", wording.percent(found.top1_agreement)))
    drift = [] if found.logits is None else [_drift("Each its own selection", found.logits)]
    if found.same_selection is not None:
        drift.append(_drift("PyTorch on the deployed selection", found.same_selection))
    if found.features_max_abs is not None:
        drift.append(("Features on the deployed selection", wording.difference(found.features_max_abs), "–", "–"))
    stages = [
        (f"Stage {stage.index}", wording.percent(stage.overlap, 2), wording.difference(stage.max_abs))
        for stage in found.stages
    ]
    intro = f"{found.model} against {found.against}, on {found.samples} images of {found.data}."
    return ParityTable(found.passed, intro, summary, drift, stages, found.failures)


def _line(row: BenchRow) -> BenchLine:
    interval = ""
    if not row.dense and row.speedup_low is not None and row.speedup_high is not None:
        interval = wording.span(row.speedup_low, row.speedup_high)
    return BenchLine(
        name=row.name,
        how=" · ".join(part for part in (row.backend, row.precision) if part),
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


def _drift(what: str, found: Drift) -> tuple[str, str, str, str]:
    return what, wording.difference(found.max_abs), wording.difference(found.mean_abs), wording.cosine(found.cosine_min)
