"""The page's one line: does the model give the same answers, and is it faster? Speed is that of what was compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tofe_export.documents.benchmark import Benchmark, BenchRow
from tofe_export.documents.verification import Verification, Verifications
from tofe_export.errors import count
from tofe_export.page.labels import short
from tofe_export.page.wording import percent, times

Tone = Literal["good", "bad", "open"]
"""Whether something holds, does not hold, or has not been checked."""
WORDS: dict[Tone, str] = {"good": "Passed", "bad": "Attention", "open": "Unfinished"}
_ROOM = 60  # characters of a name in the page's one line


def headline(verifications: Verifications | None, benchmark: Benchmark | None) -> tuple[str, Tone]:
    """The line and its tone."""
    parity, parity_tone = _parity(verifications.artifacts if verifications else ())
    speed, speed_tone = _speed(verifications, benchmark)
    tones: tuple[Tone, ...] = ("bad", "open", "good")
    return f"{parity} {speed}", next(tone for tone in tones if tone in (parity_tone, speed_tone))


def quoted_row(verifications: Verifications | None, benchmark: Benchmark | None) -> BenchRow | None:
    """The row to quote, of a model that agrees with PyTorch where there is one.

    At the smallest batch, where token reduction has it hardest; the fastest model there.
    """
    rows = [row for row in benchmark.rows if not row.dense] if benchmark else []
    compared = [row for row in rows if row.name in _agreeing(verifications)]
    return min(compared or rows, key=lambda row: (row.batch, -row.speedup), default=None)


def distinguishing_name(verifications: Verifications | None, benchmark: Benchmark | None, row: BenchRow) -> str:
    """The row's model, "" where there is no other it could be taken for."""
    timed = {other.name for other in benchmark.rows if not other.dense} if benchmark else set()
    compared = {artifact.model for artifact in verifications.artifacts} if verifications else set()
    return short(row.name, _ROOM) if len(timed | compared) > 1 else ""


def _agreeing(verifications: Verifications | None) -> set[str]:
    return {artifact.model for artifact in verifications.artifacts if artifact.passed} if verifications else set()


def _parity(artifacts: Sequence[Verification]) -> tuple[str, Tone]:
    if not artifacts:
        return "Not yet compared with PyTorch.", "open"
    return _of_one(artifacts[0]) if len(artifacts) == 1 else _of_several(artifacts)


def _of_several(artifacts: Sequence[Verification]) -> tuple[str, Tone]:
    """Several artifacts in one sentence: those that failed by name, else how many passed."""
    failed = [artifact for artifact in artifacts if artifact.passed is False]
    if failed:
        return f"Not fit to deploy: {_names(failed)}. {_first_failure(failed[0])}".strip(), "bad"
    unchecked = [artifact for artifact in artifacts if artifact.passed is None]
    if unchecked:
        passed = len(artifacts) - len(unchecked)
        return f"{passed} of {len(artifacts)} artifacts agree with PyTorch; not checked: {_names(unchecked)}.", "open"
    if not all(artifact.samples for artifact in artifacts):
        return "At least one artifact was compared with PyTorch on no image at all.", "open"
    return f"All {len(artifacts)} artifacts agree with PyTorch.{_limits(artifacts)}", "good"


def _of_one(artifact: Verification) -> tuple[str, Tone]:
    if artifact.passed is None:
        return f"Not compared with PyTorch: {artifact.error.message if artifact.error else ''}", "open"
    if not artifact.passed:
        return f"Not fit to deploy: {_first_failure(artifact) or 'The comparison with PyTorch failed.'}", "bad"
    if not artifact.samples:
        return "Compared with PyTorch on no image at all.", "open"
    limits, images = _limits([artifact]), count(artifact.samples, "image")
    if artifact.top1_agreement is None:
        return f"Within the limits of PyTorch on {images}.{limits}", "good"
    if artifact.top1_agreement == 1:
        return f"Same class as PyTorch for {'all ' if artifact.samples > 1 else ''}{images}.{limits}", "good"
    return f"Same class as PyTorch for {percent(artifact.top1_agreement)} of {images}.{limits}", "good"


def _names(artifacts: Sequence[Verification]) -> str:
    return ", ".join(short(artifact.model, _ROOM) for artifact in artifacts)


def _first_failure(artifact: Verification) -> str:
    return next(iter(artifact.failures), artifact.error.message if artifact.error else "")


def _limits(artifacts: Sequence[Verification]) -> str:
    return " Some limits were set by hand." if any(artifact.overridden for artifact in artifacts) else ""


def _speed(verifications: Verifications | None, benchmark: Benchmark | None) -> tuple[str, Tone]:
    row = quoted_row(verifications, benchmark)
    if row is None or benchmark is None:
        return "Not yet timed.", "open"
    name = distinguishing_name(verifications, benchmark, row)
    sentence, tone = _of_row(row, name, benchmark.dense_of(row))
    slower = [other.batch for other in benchmark.rows if other.subject == row.subject and _surely_slower(other)]
    if tone == "good" and slower:
        sentence, tone = f"{sentence} Slower at batch {', '.join(map(str, slower))}.", "bad"
    gate = benchmark.baseline
    if gate is not None and not gate.passed:
        regressed = any(judged.verdict == "regressed" for judged in gate.rows)
        reason = f"Slower than {gate.file} allows." if regressed else f"Not every row of {gate.file} was timed."
        return f"{sentence} {reason}", "bad"
    if tone == "good" and _agreeing(verifications) and row.name not in _agreeing(verifications):
        return f"{sentence} The model that was timed is not the one that was compared.", "open"
    return sentence, tone


def _surely_slower(row: BenchRow) -> bool:
    """By its whole interval, where there is one."""
    return (row.speedup if row.speedup_high is None else row.speedup_high) < 1


def _of_row(row: BenchRow, name: str, dense: BenchRow | None) -> tuple[str, Tone]:
    backbone = "the dense backbone"
    if dense is not None and dense.precision and dense.precision != row.precision:
        backbone += f" in {dense.precision}"
    place = f"{name}, at batch {row.batch}" if name else f"At batch {row.batch}"
    if row.speedup_low is not None and row.speedup_high is not None and row.speedup_low <= 1 <= row.speedup_high:
        return f"{place}: not measurably faster or slower than {backbone}.", "bad"
    if row.speedup < 1:
        return f"{place}: slower than {backbone}, {times(row.speedup)}.", "bad"
    return f"{place}: {times(row.speedup)} as fast as {backbone}.", "good"
