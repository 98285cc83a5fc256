"""From measurements to sentences: which precision to ship on this machine, batch size by batch size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tofe_export.documents.fields import Precision
from tofe_export.documents.quantization import BatchVerdict, PrecisionAgreement, ShippingVerdict, Speed
from tofe_export.errors import count

REFERENCE: Precision = "fp32"
_ENOUGH = 50  # images, below which a comparison says little
_FAR = 0.5  # below this ratio a percentage is hard to read
_EXACT_FIRST: tuple[Precision, ...] = (REFERENCE, "fp16", "bf16", "int8", "fp8")


def judge(precision: Precision, agreements: Sequence[PrecisionAgreement], speeds: Sequence[Speed]) -> ShippingVerdict:
    """Ships the fastest precision that still agrees with float32; of equally fast ones the most exact.

    Two are equally fast where their 95% intervals, both against float32 in the same processes, overlap. Without
    intervals, of a single process, no two can be shown to be equally fast or not: the fastest is shipped, and a reason
    says so. Where one precision is as fast as any at every batch size it is shipped for all of them.

    `precision` is the quantized one; `speeds` are of each precision, float32 among them, at one or more batch sizes.
    """
    by_precision = {agreement.precision: agreement for agreement in agreements}
    fit: set[Precision] = {REFERENCE, *(name for name, agreement in by_precision.items() if not agreement.failures)}
    by_batch = tuple(
        _at(batch, precision, {speed.precision: speed for speed in speeds if speed.batch == batch}, fit)
        for batch in sorted({speed.batch for speed in speeds})
    )
    everywhere = [name for name in _EXACT_FIRST if all(name in verdict.as_fast for verdict in by_batch)]
    quantized = by_precision[precision]
    reasons = [_cost(quantized), *quantized.failures, *(verdict.reason for verdict in by_batch)]
    if quantized.samples < _ENOUGH:
        images = "image was" if quantized.samples == 1 else "images were"
        reasons.append(f"Only {quantized.samples} held-out {images} compared: take more.")
    if any(speed.speedup_low is None for speed in speeds):
        reasons.append("Timed in one process, which does not show what is noise: take more before you rely on it.")
    if everywhere:
        ship, summary = everywhere[0], f"Ship {everywhere[0].upper()}."
    else:  # no precision is right for every batch size
        ship, parts = by_batch[-1].ship, [f"{verdict.ship.upper()} at batch {verdict.batch}" for verdict in by_batch]
        summary = f"Ship {', '.join(parts[:-1])} and {parts[-1]}."
    return ShippingVerdict(ship=ship, summary=summary, reasons=tuple(reasons), by_batch=by_batch)


def _at(batch: int, precision: Precision, speeds: Mapping[Precision, Speed], fit: set[Precision]) -> BatchVerdict:
    candidates = [name for name in _EXACT_FIRST if name in fit and name in speeds]
    # A precision drops out only if another is certainly faster; one with a wide interval must not keep it in.
    bar = max(speeds[name].interval[0] for name in candidates)
    as_fast = tuple(name for name in candidates if speeds[name].interval[1] >= bar)
    quantized = speeds[precision]
    reason = f"At batch {batch} {precision.upper()} is {_against_float32(quantized)}"
    rivals = [name for name in as_fast if name not in (precision, REFERENCE)]
    if rivals and precision in fit:
        reason += f", and {_against(quantized, speeds[rivals[0]])}"
    return BatchVerdict(batch=batch, ship=as_fast[0], as_fast=as_fast, reason=f"{reason}.")


def _against(speed: Speed, rival: Speed) -> str:
    name = rival.precision.upper()
    if speed.speedup_low is not None and speed.interval[1] >= rival.interval[0]:
        return f"there is no difference from {name} beyond noise"
    return _times(speed.speedup / rival.speedup, name)


def _against_float32(speed: Speed) -> str:
    low, high = speed.interval
    if speed.speedup_low is not None and low <= 1 <= high:
        return f"as fast as float32: no difference beyond noise ({low:.2f} to {high:.2f} times)"
    return _times(speed.speedup, "float32")


def _times(ratio: float, than: str) -> str:
    if ratio > 1:
        return f"{ratio:.2f} times as fast as {than}"
    if ratio > _FAR:
        slower = 1 / ratio - 1
        return f"{slower:.{0 if slower >= 0.01 else 1}%} slower than {than}"
    return f"{1 / ratio:.1f} times slower than {than}"


def _cost(agreement: PrecisionAgreement) -> str:
    """What the precision costs in classes, accuracy and tokens, a sentence."""
    name, images = agreement.precision.upper(), count(agreement.samples, "image")
    parts = [f"{name} gives {agreement.top1_agreement or 0.0:.1%} of {images} the class of float32"]
    if agreement.accuracy is not None:
        lost = agreement.accuracy.reference - agreement.accuracy.deployed
        verb = "loses" if lost > 0 else "gains"
        parts.append(f"{verb} {abs(lost) * 100:.1f} points of accuracy" if lost else "loses no accuracy")
    if agreement.stages:
        overlaps = ", ".join(f"{stage.selection_overlap:.3f}" for stage in agreement.stages)
        parts.append(f"chooses the same tokens to {overlaps} by stage")
    return f"{'; '.join(parts)}."
