"""The page's one line: does it say the same, and is it faster? Speed is quoted of what was compared, by name."""

from __future__ import annotations

from collections.abc import Sequence

from tofe_export.errors import count
from tofe_export.report.documents import Benchmark, BenchRow
from tofe_export.report.labels import short
from tofe_export.report.verification import Evidence, Verification
from tofe_export.report.wording import percent, times

_ROOM = 60  # characters of a name in the page's one line


def verdict(evidence: Evidence | None, benchmark: Benchmark | None) -> tuple[str, str]:
    """The line, and its tone: "good", "bad" or "open" (something has not been checked)."""
    parity, first = _parity(evidence)
    speed, second = _speed(evidence, benchmark)
    return f"{parity} {speed}", next(tone for tone in ("bad", "open", "good") if tone in (first, second))


def quoted(evidence: Evidence | None, benchmark: Benchmark | None) -> BenchRow | None:
    """The row to quote, of a model that agrees with PyTorch where there is one.

    At the smallest batch, where token reduction has it hardest; the fastest model there.
    """
    rows = [row for row in benchmark.rows if not row.dense] if benchmark else []
    compared = [row for row in rows if row.name in _agreeing(evidence)]
    return min(compared or rows, key=lambda row: (row.batch, -row.speedup), default=None)


def named(evidence: Evidence | None, benchmark: Benchmark | None, row: BenchRow) -> str:
    """The row's model, "" where there is no other it could be taken for."""
    timed = {row.name for row in benchmark.rows if not row.dense} if benchmark else set()
    verified = {found.model for found in evidence.artefacts} if evidence else set()
    return short(row.name, _ROOM) if len(timed | verified) > 1 else ""


def _agreeing(evidence: Evidence | None) -> set[str]:
    return {found.model for found in evidence.artefacts if found.passed} if evidence else set()


def _parity(evidence: Evidence | None) -> tuple[str, str]:
    every = evidence.artefacts if evidence else ()
    if not every:
        return "Not yet compared with PyTorch.", "open"
    return _of_one(every[0]) if len(every) == 1 else _of_several(every)


def _of_several(every: Sequence[Verification]) -> tuple[str, str]:
    """Several artefacts in one sentence: those that failed by name, else how many passed."""
    failed = [found for found in every if found.passed is False]
    if failed:
        names = ", ".join(short(found.model, _ROOM) for found in failed)
        first = failed[0].failures[0] if failed[0].failures else failed[0].error
        return f"Not fit to deploy: {names}. {first}", "bad"
    passed = sum(found.passed is True for found in every)
    if passed < len(every):
        missing = ", ".join(short(found.model, _ROOM) for found in every if found.passed is None)
        return f"{passed} of {len(every)} artifacts agree with PyTorch; not checked: {missing}.", "open"
    if not all(found.samples for found in every):
        return "Some artifact was compared with PyTorch on no image at all.", "open"
    limits = " By limits that were set by hand." if any(found.overridden for found in every) else ""
    return f"All {len(every)} artifacts agree with PyTorch.{limits}", "good"


def _of_one(found: Verification) -> tuple[str, str]:
    if found.passed is None:
        return f"Not compared with PyTorch: {found.error}", "open"
    if not found.passed:
        first = found.failures[0] if found.failures else found.error or "The comparison with PyTorch failed."
        return f"Not fit to deploy: {first}", "bad"
    if not found.samples:
        return "Compared with PyTorch on no image at all.", "open"
    limits = " By limits that were set by hand." if found.overridden else ""
    images = count(found.samples, "image")
    if found.top1_agreement is None:
        return f"As near to PyTorch as asked on {images}.{limits}", "good"
    if found.top1_agreement == 1:
        return f"Same answer as PyTorch on {'all ' if found.samples > 1 else ''}{images}.{limits}", "good"
    return f"Same answer as PyTorch on {percent(found.top1_agreement)} of {images}.{limits}", "good"


def _speed(evidence: Evidence | None, benchmark: Benchmark | None) -> tuple[str, str]:
    row = quoted(evidence, benchmark)
    if row is None or benchmark is None:
        return "Not yet timed.", "open"
    sentence, tone = _of_row(row, named(evidence, benchmark, row), benchmark.baseline(row))
    slower = [other.batch for other in benchmark.rows if _who(other) == _who(row) and _surely_slower(other)]
    if tone == "good" and slower:
        sentence, tone = f"{sentence} Slower than it at batch {', '.join(map(str, slower))}.", "bad"
    if benchmark.gate is not None and not benchmark.gate.passed:
        fell = any(judged.verdict == "regressed" for judged in benchmark.gate.rows)
        said = f"Slower than {benchmark.gate.file} allows." if fell else f"Not all of {benchmark.gate.file} was timed."
        return f"{sentence} {said}", "bad"
    if tone == "good" and _agreeing(evidence) and row.name not in _agreeing(evidence):
        return f"{sentence} What was timed is not what was compared.", "open"
    return sentence, tone


def _who(row: BenchRow) -> tuple[str, str, str]:
    return row.name, row.backend, row.precision


def _surely_slower(row: BenchRow) -> bool:
    """By its whole interval, where there is one."""
    return (row.speedup if row.speedup_high is None else row.speedup_high) < 1


def _of_row(row: BenchRow, name: str, dense: BenchRow | None) -> tuple[str, str]:
    than = "the dense backbone"
    if dense is not None and dense.precision and dense.precision != row.precision:
        than += f" in {dense.precision}"
    who = f"{name}, at batch {row.batch}" if name else f"At batch {row.batch}"
    if row.speedup_low is not None and row.speedup_high is not None and row.speedup_low <= 1 <= row.speedup_high:
        return f"{who}: its speed cannot be told from that of {than}.", "bad"
    if row.speedup < 1:
        return f"{who}: slower than {than}, {times(row.speedup)}.", "bad"
    return f"{who}: {times(row.speedup)} as fast as {than}.", "good"
