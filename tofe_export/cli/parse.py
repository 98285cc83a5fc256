"""Option values that are lists or pairs."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import typer

from tofe_export.bounds import LARGEST_SIDE


def comma_separated(text: str, option: str) -> tuple[str, ...]:
    """Turns "86,120" into ("86", "120").

    Raises:
        typer.BadParameter: a part is empty, as in "86,", where a value may have got lost on its way.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise typer.BadParameter(f"{text!r} has an empty part.", param_hint=option)
    return parts


def whole_numbers(text: str, option: str) -> tuple[int, ...]:
    """Turns "96,49,27" into (96, 49, 27).

    Raises:
        typer.BadParameter: anything else, naming the option.
    """
    try:
        if "_" in text:  # which Python takes
            raise ValueError
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a list of whole numbers; write it like 96,49,27.", param_hint=option
        ) from None


def counts_or_ratios(text: str, option: str) -> tuple[tuple[int, ...] | None, tuple[float, ...] | None]:
    """Turns "96,49,27" into counts, or "0.49,0.25,0.14" into ratios; a number with a point is a ratio.

    Raises:
        typer.BadParameter: anything else, or some of both.
    """
    if "." not in text:
        return whole_numbers(text, option), None
    try:
        ratios = tuple(float(part) for part in text.split(","))
    except ValueError:
        ratios = ()
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios) or not all("." in part for part in text.split(",")):
        raise typer.BadParameter(
            f"{text!r} is neither a list of counts (96,49,27) nor of ratios between 0 and 1 (0.49,0.25,1.0).",
            param_hint=option,
        )
    return None, ratios


def image_size(text: str, option: str) -> tuple[int, int]:
    """Turns "384" into (384, 384) and "256x192" into (256, 192): height, then width.

    Raises:
        typer.BadParameter: anything else.
    """
    match = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.lower(), re.ASCII)
    if match is None:
        raise typer.BadParameter(f"{text!r} is not a size in pixels; write 384 or 256x192.", param_hint=option)
    height, width = int(match[1]), int(match[2] or match[1])
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise typer.BadParameter(f"{text} is not from 1 to {LARGEST_SIDE:,} pixels a side.", param_hint=option)
    return height, width


def names(text: str, known: dict[str, str], option: str) -> tuple[str, ...]:
    """Turns "features,logits" into a tuple, each name once; `known` maps a word to the name it stands for.

    Raises:
        typer.BadParameter: a name that is not known.
    """
    chosen: list[str] = []
    for part in comma_separated(text, option):
        if part not in known:
            raise typer.BadParameter(f"{part!r} is none of: {', '.join(known)}.", param_hint=option)
        if known[part] not in chosen:
            chosen.append(known[part])
    return tuple(chosen)


def tolerances(texts: Iterable[str] | None) -> dict[str, float]:
    """Turns "logits_max_abs=1e-3" and "int8.cosine_min=0.8" into limits by name.

    Raises:
        typer.BadParameter: a part without a name or a number, or a name that is given twice.
    """
    limits: dict[str, float] = {}
    for text in texts or ():
        name, equals, value = (piece.strip() for piece in text.partition("="))
        try:
            limit = float(value)
        except ValueError:
            limit = math.nan
        if not equals or not name or not math.isfinite(limit):
            problem = f"{text!r} is not NAME=VALUE; write logits_max_abs=1e-3."
            raise typer.BadParameter(problem, param_hint="--tolerance")
        if name in limits:
            raise typer.BadParameter(f"{name} is given twice.", param_hint="--tolerance")
        limits[name] = limit
    return limits


def provider_name(text: str) -> str:
    """`text`, checked to be the name of a place where ONNX Runtime computes.

    Raises:
        typer.BadParameter: it is not.
    """
    from tofe_export.runners.onnxruntime_runner import PROVIDERS

    if text not in PROVIDERS:
        raise typer.BadParameter(f"{text!r} is none of: {', '.join(PROVIDERS)}.", param_hint="--provider")
    return text


def keyword_arguments(text: str, option: str) -> dict[str, Any]:
    """Turns "img_size=64,qk_norm=true,global_pool=avg" into a dictionary; values are JSON, or else plain words.

    Raises:
        typer.BadParameter: a part without a name or a value, naming the option.
    """
    values: dict[str, Any] = {}
    for part in comma_separated(text, option) if text else ():
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not (name.isidentifier() and equals and value):
            raise typer.BadParameter(f"{part!r} is not NAME=VALUE; write img_size=64,patch_size=8.", param_hint=option)
        if name in values:
            raise typer.BadParameter(f"{name} is given twice.", param_hint=option)
        try:
            values[name] = json.loads(value)
        except (ValueError, RecursionError):  # a plain word; or far too many digits or brackets
            values[name] = value
        if isinstance(values[name], float) and not math.isfinite(values[name]):
            raise typer.BadParameter(f"{part!r} is not a finite number.", param_hint=option)
    return values
