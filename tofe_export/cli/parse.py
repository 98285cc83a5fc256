"""Option values that are lists or pairs. For any other text each function raises `BadParameter`, naming the option."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, Literal

from typer import BadParameter

from tofe_export.bounds import LARGEST_SIDE

OutputName = Literal["logits", "features", "classes"]
_OUTPUTS: dict[str, OutputName] = {
    "logits": "logits",
    "features": "features",
    "tokens": "features",  # patch tokens
    "classes": "classes",
}


def comma_separated(text: str, option: str) -> tuple[str, ...]:
    """Turns "86,120" into ("86", "120"). No part may be empty, as in "86,": a value may have got lost on its way."""
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise BadParameter(f"{text!r} has an empty part.", param_hint=option)
    return parts


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Turns "96,49,27" into (96, 49, 27)."""
    try:
        if "_" in text:  # which Python takes
            raise ValueError
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        problem = f"{text!r} is not a list of whole numbers; write it like 96,49,27."
        raise BadParameter(problem, param_hint=option) from None


def counts_or_ratios(text: str) -> tuple[float, ...]:
    """Turns "96,49,27" into counts, or "0.49,0.25,0.14" into ratios; a number with a point is a ratio."""
    if "." not in text:
        return whole_numbers(text, "--keep")
    parts = text.split(",")
    try:
        ratios = tuple(float(part) for part in parts)
    except ValueError:
        ratios = ()
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios) or not all("." in part for part in parts):
        problem = f"{text!r} is neither a list of counts (96,49,27) nor of ratios between 0 and 1 (0.49,0.25,1.0)."
        raise BadParameter(problem, param_hint="--keep")
    return ratios


def image_size(text: str) -> tuple[int, int]:
    """Turns "384" into (384, 384) and "256x192" into (256, 192): height, then width."""
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.lower(), re.ASCII)
    if match is None:
        raise BadParameter(f"{text!r} is not a size in pixels; write 384 or 256x192.", param_hint="--img-size")
    height, width = int(match[1]), int(match[2] or match[1])
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise BadParameter(f"{text} is not from 1 to {LARGEST_SIDE:,} pixels a side.", param_hint="--img-size")
    return height, width


def output_names(text: str) -> tuple[OutputName, ...]:
    """Turns "tokens,logits" into ("features", "logits"), each once."""
    parts = comma_separated(text, "--outputs")
    for part in parts:
        if part not in _OUTPUTS:
            raise BadParameter(f"{part!r} is none of: {', '.join(_OUTPUTS)}.", param_hint="--outputs")
    return tuple(dict.fromkeys(_OUTPUTS[part] for part in parts))


def share(text: str) -> float:
    """Turns "5%" and "0.05" into 0.05, which is at least 0 and below 1."""
    number, percent = text.strip().removesuffix("%"), text.strip().endswith("%")
    try:
        value = float(number) / (100 if percent else 1)
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        raise BadParameter(f"{text!r} is not a share of the speed-up; write 5% or 0.05.", param_hint="--max-regression")
    return value


def tolerances(texts: Iterable[str] | None) -> dict[str, float]:
    """Turns "logits_max_abs=1e-3" and "int8.cosine_min=0.8" into limits by name, each given once."""
    limits: dict[str, float] = {}
    for text in texts or ():
        name, _, value = (piece.strip() for piece in text.partition("="))
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if not name or not math.isfinite(limit):
            problem = f"{text!r} is not NAME=VALUE; write logits_max_abs=1e-3."
            raise BadParameter(problem, param_hint="--tolerance")
        if name in limits:
            raise BadParameter(f"{name} is given twice.", param_hint="--tolerance")
        limits[name] = limit
    return limits


def keyword_arguments(text: str) -> dict[str, Any]:
    """Turns "img_size=[96,64],qk_norm=true,global_pool=avg" into a dictionary; see `value_of`."""
    values: dict[str, Any] = {}
    for part in _split_outside_brackets(text, "--backbone-args") if text else ():
        name, _, value = (piece.strip() for piece in part.partition("="))
        if not (name.isidentifier() and value):
            problem = f"{part!r} is not NAME=VALUE; write img_size=64,patch_size=8."
            raise BadParameter(problem, param_hint="--backbone-args")
        if name in values:
            raise BadParameter(f"{name} is given twice.", param_hint="--backbone-args")
        values[name] = value_of(value, part, "--backbone-args")
    return values


def recipe_changes(texts: Iterable[str] | None) -> dict[str, Any]:
    """Turns "run.precision=bf16" and "images.scale=[0.5,1.0]" into values by key, each given once."""
    changes: dict[str, Any] = {}
    for text in texts or ():
        key, _, value = (piece.strip() for piece in text.partition("="))
        if "." not in key or not value:
            raise BadParameter(f"{text!r} is not KEY=VALUE; write run.precision=bf16.", param_hint="--set")
        if key in changes:
            raise BadParameter(f"{key} is given twice.", param_hint="--set")
        changes[key] = value_of(value, text, "--set")
    return changes


def value_of(text: str, part: str, option: str) -> Any:
    """A value as JSON writes it, or else a plain word."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # a plain word; or far too many digits or brackets
        return text
    if not _is_finite(value):
        raise BadParameter(f"{part!r} is not a finite number.", param_hint=option)
    return value


def _is_finite(value: Any) -> bool:
    """Whether a value of JSON holds neither NaN nor infinity, which Python reads and JSON does not have."""
    if isinstance(value, dict):
        return all(map(_is_finite, value.values()))
    if isinstance(value, list):
        return all(map(_is_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


def _split_outside_brackets(text: str, option: str) -> list[str]:
    """The parts between commas, but not those in brackets."""
    parts, depth, start = [], 0, 0
    for place, sign in enumerate(f"{text},"):
        depth += (sign in "[{(") - (sign in "]})")
        if depth < 0:
            raise BadParameter(f"{text!r} closes a bracket that is not open.", param_hint=option)
        if sign == "," and depth == 0:
            parts.append(text[start:place].strip())
            start = place + 1
    if depth > 0:
        raise BadParameter(f"{text!r} has a bracket that is not closed.", param_hint=option)
    if not all(parts):
        raise BadParameter(f"{text!r} has an empty part.", param_hint=option)
    return parts
