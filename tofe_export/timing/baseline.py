"""A gate for CI: has a model become slower than a recorded run says, in proportion to its dense backbone?

What is compared is the speed-up, a ratio within each round of each process, never a time: a slower machine or a busy
one slows the dense backbone alike. A row has regressed when its speed-up fell by more than the limit and the fall is
sure: by Welch's t test on the logarithms of the speed-ups of the processes, which takes the spread of both runs into
account. With several rows each is tested at a share of the level, so that an unchanged model fails in at most 5% of
runs, however many rows there are.

Of a run in one process the spread is not known, so that no fall can be sure: the row is `unsure` at most, and passes. A
baseline that holds an interval but not the speed-ups of its processes, as older versions wrote it, is taken at its
word. A note says either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from tofe_export.documents.base import read_document
from tofe_export.documents.benchmark import Benchmark, BenchRow, Gate, GateRow, RowKey
from tofe_export.errors import InputError
from tofe_export.timing.intervals import LogMean, chance_of_fall, log_mean, log_mean_of_interval

_LEVEL = 0.05  # of all rows together
_RECORD = "Benchmark a model and save the result as JSON."


def read_baseline(path: Path) -> Benchmark:
    """A recorded run; raises InputError as `read_document` and `require_rows` do."""
    recorded = read_document(Benchmark, path, _RECORD)
    require_rows(recorded, str(path))
    return recorded


def require_rows(recorded: Benchmark, name: str) -> None:
    """Raises InputError unless a recorded run holds a model beside the dense backbone."""
    if not compared_rows(recorded):
        raise InputError(f"{name} holds no model beside the dense backbone.", _RECORD, code="baseline-empty")


def compared_rows(benchmark: Benchmark) -> dict[RowKey, BenchRow]:
    """Every row but the dense ones."""
    return {row.key: row for row in benchmark.rows if not row.dense}


def judge(benchmark: Benchmark, recorded: Benchmark, file: str, max_regression: float) -> Gate:
    """What a recorded run, called `file` in sentences, says of a new one.

    `max_regression` is the share of the speed-up that may be lost, 0..1.
    """
    old, new = compared_rows(recorded), compared_rows(benchmark)
    level = _LEVEL / max(1, len(old.keys() & new.keys()))
    rows = tuple(_judged(row, new.get(key), max_regression, level) for key, row in old.items())
    return Gate(
        file=file,
        max_regression=max_regression,
        passed=not any(row.failure for row in rows),
        rows=rows,
        notes=(*_other_machine(benchmark, recorded), *_other_models(old, new), *_unknown_spread(old, new)),
    )


def _judged(old: BenchRow, new: BenchRow | None, limit: float, level: float) -> GateRow:
    name, backend, precision, batch = old.key
    row = GateRow(
        name=name, backend=backend, precision=precision, batch=batch, baseline=old.speedup, verdict="not timed"
    )
    if new is None:
        return row
    change = new.speedup / old.speedup - 1
    before, now = _spread(old), _spread(new)
    surely = before is not None and now is not None and chance_of_fall(before, now) < level
    verdict = "held" if not change < -limit else "regressed" if surely else "unsure"
    return row.replaced(speedup=new.speedup, low=new.speedup_low, high=new.speedup_high, change=change, verdict=verdict)


def _spread(row: BenchRow) -> LogMean | None:
    """What is known of a speed-up and its spread; None where nothing is known of the spread."""
    if len(row.speedups) > 1:
        return log_mean(row.speedups)
    if row.speedups or row.speedup_low is None or row.speedup_high is None:
        return None
    return log_mean_of_interval(row.speedup, *sorted((row.speedup_low, row.speedup_high)))


def _unknown_spread(old: Mapping[RowKey, BenchRow], new: Mapping[RowKey, BenchRow]) -> list[str]:
    notes = []
    both = [(row, new[key]) for key, row in old.items() if key in new]
    if any(_spread(now) is None for _, now in both):
        notes.append("This run has one process, so that no fall can be sure: give `processes=5`.")
    if any(_spread(before) is None for before, _ in both):
        notes.append("The baseline holds one process, so that no fall can be sure: record it again.")
    elif any(not before.speedups for before, _ in both):
        notes.append(
            "The baseline holds the interval of a single process, which may be narrower than that of several: "
            "record it again."
        )
    return notes


def _other_machine(benchmark: Benchmark, recorded: Benchmark) -> list[str]:
    """A sentence for each thing that makes the two runs hard to compare."""
    notes = []
    for part in ("processor", "gpu"):
        then, now = getattr(recorded.machine, part), getattr(benchmark.machine, part)
        if then != now:
            notes.append(
                f"The baseline was measured on another {part} ({then or 'none'}, now {now or 'none'}): "
                "a speed-up belongs to its machine, so record a baseline here."
            )
    threads = recorded.settings.threads
    if threads not in (None, benchmark.settings.threads):
        notes.append(
            f"The baseline was measured with {threads} threads, this run with {benchmark.settings.threads}: "
            "measure with as many."
        )
    return notes


def _other_models(old: Mapping[RowKey, BenchRow], new: Mapping[RowKey, BenchRow]) -> list[str]:
    notes = []
    for key, row in new.items():
        if key not in old:
            notes.append(
                f"{row.name} ({row.backend}, {row.precision}) at batch {row.batch} is not in the baseline, "
                "so it is not judged."
            )
        elif not math.isclose(row.gmacs, old[key].gmacs, rel_tol=1e-6):
            notes.append(
                f"{row.name} at batch {row.batch} costs {row.gmacs:.4g} GMACs, in the baseline "
                f"{old[key].gmacs:.4g}: it is another model."
            )
    return notes
