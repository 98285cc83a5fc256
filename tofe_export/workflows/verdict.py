"""From what was measured to one sentence: which precision to ship on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tofe_export.bench.timing import Ratio
from tofe_export.verify.agreement import Agreement

REFERENCE = "fp32"
_ENOUGH = 50  # images, below which an agreement says little
_FAR = 0.5  # from here on a percentage is no way to say it


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
class Verdict:
    """What to ship.

    Attributes:
        ship: a precision.
        fit: the quantized model agrees with float32.
        reasons: sentences.
    """

    ship: str
    fit: bool
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """`verdict` in quantize.json."""
        return {"ship": self.ship, "reasons": list(self.reasons)}


def judge(precision: str, agreements: Sequence[Agreement], speeds: Sequence[Speed]) -> Verdict:
    """Ships the fastest precision that still agrees with float32; judged at the largest batch that was timed.

    Args:
        precision: the quantized one.
        agreements: each precision against float32.
        speeds: each precision, float32 among them, at one or more batch sizes.
    """
    batch = max(speed.batch for speed in speeds)
    there = {speed.precision: speed for speed in speeds if speed.batch == batch}
    found = {agreement.precision: agreement for agreement in agreements}
    fit = [name for name in there if name == REFERENCE or not found[name].failures]
    best = max(fit, key=lambda name: _sure(there[name].speedup, name))
    reasons = [_lost(found[precision])]
    if found[precision].failures:
        reasons += found[precision].failures
    reasons.append(_gained(precision, [speed for speed in speeds if speed.precision == precision]))
    if (compared := found[precision].logits.samples) < _ENOUGH:
        reasons.append(
            f"Only {compared} held-out {'image was' if compared == 1 else 'images were'} compared: take more."
        )
    rival = there[best]
    if best not in (precision, REFERENCE) and precision in fit:
        slower = there[precision].p50_ms / rival.p50_ms - 1
        reasons.append(f"It is {slower:.0%} slower than {best.upper()} at batch {batch}.")
    return Verdict(best, not found[precision].failures, tuple(reasons))


def _sure(speedup: Ratio, name: str) -> float:
    """What is not surely faster than float32 counts as no faster."""
    return 1.0 if name == REFERENCE or speedup.low <= 1 else speedup.median


def _lost(agreement: Agreement) -> str:
    name, found = agreement.precision.upper(), agreement
    parts = [f"{name} gives {found.logits.top1_agreement:.1%} of {_images(found.logits.samples)} the class of float32"]
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


def _images(count: int) -> str:
    return f"{count} image{'' if count == 1 else 's'}"


def _gained(precision: str, speeds: Sequence[Speed]) -> str:
    parts = []
    for speed in sorted(speeds, key=lambda item: item.batch):
        ratio = speed.speedup
        if ratio.low <= 1 <= ratio.high:
            parts.append(f"as fast as float32 at batch {speed.batch}")
        elif ratio.median > 1:
            parts.append(f"{ratio.median:.2f} times as fast as float32 at batch {speed.batch}")
        elif ratio.median > _FAR:
            parts.append(f"{1 / ratio.median - 1:.0%} slower than float32 at batch {speed.batch}")
        else:
            parts.append(f"{1 / ratio.median:.1f} times slower than float32 at batch {speed.batch}")
    return f"{precision.upper()} is {', '.join(parts)}."
