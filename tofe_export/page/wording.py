"""Numbers in words."""

from __future__ import annotations

import math

from tofe_export.documents.benchmark import BenchRow

NOTHING = "–"
NOT_FINITE = "not finite"
_RAISED = str.maketrans("-0123456789", "\u207b⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: float | None, digits: int = 1) -> str:
    """0.5 -> "50 %"; only a share of exactly 1 is called 100 %; None is a dash."""
    if share is None:
        return NOTHING
    if not math.isfinite(share):
        return NOT_FINITE
    text = f"{share * 100:.{digits}f}"
    if share < 1 and float(text) >= 100:
        return f"> {100 - 10**-digits:.{digits}f}\u202f%"
    if share > 0 and float(text) == 0:
        return f"< {10**-digits:.{digits}f}\u202f%"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "\u202f%"


def times(factor: float) -> str:
    """1.873 -> "1.87×"."""
    return f"{factor:.2f}×"


def per_second(value: float) -> str:
    """Images per second, thousands apart."""
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 100 else digits(value)


def time_unit(seconds: float) -> tuple[str, str, float]:
    """The unit in which a time is at least 2, or seconds: its name, its sign, and how many seconds it has."""
    if seconds >= 7200:
        return "hours", "h", 3600.0
    return ("minutes", "min", 60.0) if seconds >= 120 else ("seconds", "s", 1.0)


def duration(seconds: float) -> str:
    """12120 -> "3.37 h"."""
    _, sign, size = time_unit(seconds)
    return f"{digits(seconds / size)}\u202f{sign}"


def difference(value: float | None) -> str:
    """1.25e-06 -> "1.3 × 10⁻⁶"; None is a dash."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return NOT_FINITE
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    if -3 < int(exponent) < 3:
        return digits(value)
    return f"{mantissa}\u202f×\u202f10{str(int(exponent)).translate(_RAISED)}"


def measured(value: float | None) -> str:
    """The same of what was measured: null is then what is not finite."""
    return difference(math.inf if value is None else value)


def cosine(value: float) -> str:
    """How far from 1, which is what can be seen of it: "1 − 2.4 × 10⁻⁹", or "1"."""
    gap = 1 - value
    if abs(gap) < 1e-12:
        return "1"
    return f"1 − {difference(gap)}" if 0 < gap < 0.01 else f"{value:.4f}"


def how(backend: str, precision: str) -> str:
    """What ran a model; what is not known is omitted."""
    return " · ".join(part for part in (backend, precision) if part)


def interval(row: BenchRow) -> str:
    """The interval of a speed-up, which is not broken over two lines; "" where there is none."""
    if row.speedup_low is None or row.speedup_high is None:
        return ""
    return f"{row.speedup_low:.2f}\u2060–\u2060{row.speedup_high:.2f}"


def digits(value: float) -> str:
    """Three digits that mean something: 0.123, 1.23, 12.3, 123."""
    if not math.isfinite(value):
        return NOT_FINITE
    places = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(places, 4)}f}"
