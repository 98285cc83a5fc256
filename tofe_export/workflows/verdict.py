"""From what was measured to sentences: which precision to ship on this machine, batch size by batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tofe_export.bench.timing import Ratio
from tofe_export.errors import count
from tofe_export.verify.comparison import Comparison

REFERENCE = "fp32"
_ENOUGH = 50  # images, below which a comparison says little
_FAR = 0.5  # from here on a percentage is no way to say it
_EXACT_FIRST = (REFERENCE, "fp16", "bf16", "int8", "fp8")


@dataclass(frozen=True)
class Speed:
    """How fast a precision runs.

    Attributes:
        precision: "fp32", "fp16", ...
        batch: images a run.
        p50_ms: median latency.
        speedup: against float32 in the same rounds.
    """

    precision: str
    batch: int
    p50_ms: float
    speedup: Ratio

    def to_dict(self) -> dict[str, Any]:
        """An entry of `speed` in quantize.json."""
        return {
            "precision": self.precision,
            "batch": self.batch,
            "p50_ms": self.p50_ms,
            "speedup": self.speedup.median,
            "speedup_low": self.speedup.low,
            "speedup_high": self.speedup.high,
        }


@dataclass(frozen=True)
class BatchVerdict:
    """What to ship for one batch size.

    Attributes:
        batch: images a run.
        ship: of `as_fast` the most exact precision.
        as_fast: the precisions that agree with float32 and are as fast as the fastest of those, as far as can be told.
        reason: how fast the quantized one is, a sentence.
    """

    batch: int
    ship: str
    as_fast: tuple[str, ...]
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """An entry of `verdict.by_batch` in quantize.json."""
        return {"batch": self.batch, "ship": self.ship, "as_fast": list(self.as_fast), "reason": self.reason}


@dataclass(frozen=True)
class Verdict:
    """What to ship.

    Attributes:
        ship: a precision; where batch sizes disagree, that of the largest.
        fit: the quantized model agrees with float32.
        reasons: sentences.
        by_batch: for each batch size, ascending.
    """

    ship: str
    fit: bool
    reasons: tuple[str, ...]
    by_batch: tuple[BatchVerdict, ...]

    @property
    def summary(self) -> str:
        """The last sentence: what to ship; for each batch size where no one precision is right for all."""
        if all(self.ship in found.as_fast for found in self.by_batch):
            return f"Ship {self.ship.upper()}."
        parts = [f"{found.ship.upper()} at batch {found.batch}" for found in self.by_batch]
        return f"Ship {', '.join(parts[:-1])} and {parts[-1]}."

    def to_dict(self) -> dict[str, Any]:
        """`verdict` in quantize.json."""
        return {
            "ship": self.ship,
            "summary": self.summary,
            "reasons": list(self.reasons),
            "by_batch": [found.to_dict() for found in self.by_batch],
        }


def judge(precision: str, found: Sequence[Comparison], speeds: Sequence[Speed]) -> Verdict:
    """Ships the fastest precision that still agrees with float32; of equally fast ones the most exact.

    Two are equally fast where their 95% intervals, both against float32 in the same rounds, overlap. Where one
    precision is as fast as any at every batch size it is shipped for all of them.

    Args:
        precision: the quantized one.
        found: each precision against float32.
        speeds: each precision, float32 among them, at one or more batch sizes.
    """
    compared = {comparison.precision: comparison for comparison in found}
    fit = {REFERENCE, *(name for name, comparison in compared.items() if not comparison.failures)}
    by_batch = tuple(
        _at(batch, precision, {speed.precision: speed for speed in speeds if speed.batch == batch}, fit)
        for batch in sorted({speed.batch for speed in speeds})
    )
    everywhere = [name for name in _EXACT_FIRST if all(name in verdict.as_fast for verdict in by_batch)]
    mine = compared[precision]
    reasons = [_lost(mine), *mine.failures, *(verdict.reason for verdict in by_batch)]
    if mine.samples < _ENOUGH:
        images = "image was" if mine.samples == 1 else "images were"
        reasons.append(f"Only {mine.samples} held-out {images} compared: take more.")
    return Verdict(everywhere[0] if everywhere else by_batch[-1].ship, not mine.failures, tuple(reasons), by_batch)


def _at(batch: int, precision: str, there: Mapping[str, Speed], fit: set[str]) -> BatchVerdict:
    candidates = [name for name in _EXACT_FIRST if name in fit and name in there]
    # Only what another surely beats drops out: a wide interval of one must not bring back what others beat.
    bar = max(there[name].speedup.low for name in candidates)
    as_fast = tuple(name for name in candidates if there[name].speedup.high >= bar)
    reason = f"At batch {batch} {precision.upper()} is {_gained(there[precision].speedup, 'float32')}"
    rivals = [name for name in as_fast if name not in (precision, REFERENCE)]
    if rivals and precision in fit:
        reason += f", and {_beside(there[precision], there[rivals[0]])}"
    return BatchVerdict(batch, as_fast[0], as_fast, f"{reason}.")


def _beside(mine: Speed, rival: Speed) -> str:
    name = rival.precision.upper()
    if mine.speedup.high >= rival.speedup.low:
        return f"there is no difference from {name} beyond noise"
    return _gained(Ratio(mine.speedup.median / rival.speedup.median, 0, 0), name)


def _gained(ratio: Ratio, than: str) -> str:
    if ratio.low <= 1 <= ratio.high:
        return f"as fast as {than}: no difference beyond noise ({ratio.low:.2f} to {ratio.high:.2f} times)"
    if ratio.median > 1:
        return f"{ratio.median:.2f} times as fast as {than}"
    if ratio.median > _FAR:
        slower = 1 / ratio.median - 1
        return f"{slower:.{0 if slower >= 0.01 else 1}%} slower than {than}"
    return f"{1 / ratio.median:.1f} times slower than {than}"


def _lost(found: Comparison) -> str:
    name, images = found.precision.upper(), count(found.logits.samples, "image")
    parts = [f"{name} gives {found.logits.top1_agreement:.1%} of {images} the class of float32"]
    if (lost := found.accuracy_lost) is not None:
        parts.append(
            f"{'loses' if lost > 0 else 'gains'} {abs(lost) * 100:.1f} points of accuracy"
            if lost
            else "loses no accuracy"
        )
    if found.stages:
        overlaps = ", ".join(f"{stage.overlap:.3f}" for stage in found.stages.values())
        parts.append(f"chooses the same tokens to {overlaps} by stage")
    return f"{'; '.join(parts)}."
