"""Numbers in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tofe_export.errors import count

_RAISED = str.maketrans("-0123456789", "\u207b⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(share: float, digits: int = 1) -> str:
    """0.5 -> "50 %"; only a share of exactly 1 is called 100 %."""
    if not math.isfinite(share):
        return "not finite"
    text = f"{share * 100:.{digits}f}"
    if share < 1 and float(text) >= 100:
        return f"> {100 - 10**-digits:.{digits}f}\u202f%"
    if share > 0 and float(text) == 0:
        return f"< {10**-digits:.{digits}f}\u202f%"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + "\u202f%"


def times(factor: float) -> str:
    """1.873 -> "1.87×"."""
    return f"{factor:.2f}×"


def span(low: float, high: float) -> str:
    """An interval that is not broken over two lines."""
    return f"{low:.2f}\u2060–\u2060{high:.2f}"


def milliseconds(value: float) -> str:
    """Three digits that mean something: 0.123, 1.23, 12.3, 123."""
    return _three_digits(value)


def per_second(value: float) -> str:
    """Images a second, thousands apart."""
    return f"{value:,.0f}".replace(",", "\u202f") if value >= 100 else _three_digits(value)


def gmacs(value: float) -> str:
    """GMACs with three digits."""
    return _three_digits(value)


def difference(value: float | None) -> str:
    """1.25e-06 -> "1.3 × 10⁻⁶"; "–" where there is none."""
    if value is None:
        return "–"
    if not math.isfinite(value):
        return "not finite"
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    if -3 < int(exponent) < 3:
        return _three_digits(value)
    return f"{mantissa}\u202f×\u202f10{str(int(exponent)).translate(_RAISED)}"


def cosine(value: float) -> str:
    """How far from 1, which is what can be seen of it: "1 − 2.4 × 10⁻⁹", or "1"."""
    if not math.isfinite(value):
        return "not finite"
    gap = 1 - value
    if abs(gap) < 1e-12:
        return "1"
    return f"1 − {difference(gap)}" if 0 < gap < 0.01 else f"{value:.4f}"


def how(backend: str, precision: str) -> str:
    """What ran a model; what is not known is left out."""
    return " · ".join(part for part in (backend, precision) if part)


def machine_line(machine: Mapping[str, Any], settings: Mapping[str, Any], on_cpu: bool, on_gpu: bool) -> str:
    """Processor, threads, rounds: what a figure depends on, in one line; what is not known is left out.

    Args:
        machine, settings: of bench.json.
        on_cpu: some model ran on the processor, so its threads matter.
        on_gpu: some model ran on the GPU.
    """
    keys = ("processor", "gpu", "system") if on_gpu else ("processor", "system")
    parts = [str(machine[key]) for key in keys if machine.get(key)]
    threads, rounds = settings.get("threads"), settings.get("rounds")
    if on_cpu and isinstance(threads, int):
        parts.append(count(threads, "thread") + (" on the processor" if on_gpu else ""))
    if isinstance(rounds, int):
        parts.append(f"{count(rounds, 'round')}, each model beside its dense backbone in turn")
    return " · ".join(parts)


def _three_digits(value: float) -> str:
    if not math.isfinite(value):
        return "not finite"
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{min(digits, 4)}f}"
