"""Kinds of values that documents hold, each with its bounds.

JSON knows no integers and Python takes `true` for 1, so numbers are checked strictly. A text may be any that Python can
hold, lone surrogates included, which older versions wrote for file names that are not UTF-8.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, InstanceOf, JsonValue

from tofe_export.bounds import LARGEST_SIDE, MOST_THREADS
from tofe_export.errors import brief

_MOST = 10**9
_DEEPEST = 16  # lists within lists
_LARGEST_JSON = 1e300  # beyond it readers of JSON see infinities
_LARGEST = 1e12
"""No time, cost or count is larger; beyond it a chart has no axis."""


def must(holds: Callable[[Any], bool], wanted: str) -> AfterValidator:
    """A condition of a field; `wanted` says it, as in "it should be a first block and a later one"."""

    def check(value: Any) -> Any:
        if not holds(value):
            raise ValueError(wanted)
        return value

    return AfterValidator(check)


def _beside(name: str) -> bool:
    return name not in ("", ".", "..") and not set("/\0") & set(name)


def _finite(value: JsonValue) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not (isinstance(value, float) and not math.isfinite(value)) and all(map(_finite, inside))


def plain(value: object, depth: int = 0) -> JsonValue:
    """`value`, of whatever type, as a JSON value: numbers that are not finite are null, other objects a short text."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, (int, float)):
        return value if abs(value) < _LARGEST_JSON else None
    if isinstance(value, Mapping) and depth < _DEEPEST:
        return {key if isinstance(key, str) else brief(key): plain(inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, (list, tuple)) and depth < _DEEPEST:
        return [plain(inner, depth + 1) for inner in value]
    return brief(value)


Text = InstanceOf[str]
Name = Annotated[InstanceOf[str], must(bool, "it should be a name")]
FileName = Annotated[InstanceOf[str], must(_beside, "it should be the name of a file, without a folder")]
Flag = Annotated[bool, Field(strict=True)]
Whole = Annotated[int, Field(strict=True)]
Count = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
Positive = Annotated[int, Field(strict=True, ge=1, le=_MOST)]
NaturalNumber = Annotated[int, Field(strict=True, ge=0)]
"""Such as bytes or weights, of which there may be more than of anything that is a `Count`."""
Side = Annotated[int, Field(strict=True, ge=1, le=LARGEST_SIDE)]
Threads = Annotated[int, Field(strict=True, ge=1, le=MOST_THREADS)]
Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]
Amount = Annotated[float, Field(strict=True, gt=0, lt=_LARGEST, allow_inf_nan=False)]
"""A time, a cost or a ratio: above 0, and small enough to be drawn."""
Share = Annotated[float, Field(strict=True, ge=0, le=1)]
Cosine = Annotated[float, Field(strict=True, ge=-1.0001, le=1.0001)]  # rounding leaves the interval
Precision = Literal["fp32", "fp16", "bf16", "int8", "fp8"]
AnyValue = Annotated[JsonValue, must(_finite, "it should hold finite numbers only")]
"""Any JSON value that can be written again."""
Target = Literal["any", "onnxruntime", "openvino"]
"""What a file was optimized for; "any" is every reader of standard operators."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
