"""A calibration recipe, as it stands in its TOML file and in the manifest of what it calibrated."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from tofe_export.documents.fields import Flag, Name, Share, Text
from tofe_export.documents.toml import Table

Method = Literal["minmax", "percentile", "entropy"]
Kind = Literal["patch_embed", "qkv", "attention", "proj", "fc1", "fc2", "approximator", "selector", "head"]
METHODS: tuple[str, ...] = get_args(Method)
KINDS: tuple[str, ...] = get_args(Kind)
"""Kinds of layers; `attention` are the two products of computed values, all others multiply with weights."""
ATTENTION: Kind = "attention"
Weighted = Literal["patch_embed", "qkv", "proj", "fc1", "fc2", "approximator", "selector", "head"]
_MOST = (1 << 32) - 1


class CalibrationData(Table):
    """Which images: `source` as in `data`, at most `samples` of them, drawn by `seed`."""

    source: Name
    samples: Annotated[int, Field(strict=True, ge=1, le=_MOST)] = 256
    seed: Annotated[int, Field(strict=True, ge=0, le=_MOST)] = 0


class RangePolicy(Table):
    """How ranges come from magnitudes; see `Histogram.range`."""

    method: Method = "percentile"
    percentile: Annotated[float, Field(strict=True, gt=50, le=100)] = 99.99


class QuantizePolicy(Table):
    """What is computed in 8 bits.

    Attributes:
        per_channel: a scale for each output channel of a weight, else one for the whole weight.
        symmetric: zero points are 0; TensorRT takes no other.
        attention: both products of every attention in 8 bits, or neither.
        high_precision: kinds of layers that are not quantized.
        around: precision of everything else; "auto" is fp16 in an engine and fp32 in an ONNX file.
        reduce_range: INT8 weights of an ONNX file use 7 bits, so that ONNX Runtime computes the same everywhere: its
            kernels for x86 without VNNI saturate with 8. An engine calibrated from a float32 file uses 8.
    """

    per_channel: Flag = True
    symmetric: Flag = True
    attention: Flag = True
    high_precision: tuple[Weighted, ...] = ("patch_embed", "approximator", "selector", "head")
    around: Literal["auto", "fp16", "fp32"] = "auto"
    reduce_range: Flag = True

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of layers that are quantized."""
        chosen = (kind for kind in KINDS if kind not in self.high_precision)
        return tuple(kind for kind in chosen if kind != ATTENTION or self.attention)

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.symmetric:
            raise ValueError("symmetric is false, but TensorRT takes no zero point other than 0")
        if not self.kinds:
            raise ValueError("high_precision leaves nothing to quantize")
        return self


class KeepPolicy(Table):
    """Which quantile of the images' kept tokens becomes the keep count."""

    quantile: Share = 0.5


class CalibrationRecipe(Table):
    """A whole recipe. `name` is the file's, without `.toml`."""

    name: Text
    data: CalibrationData
    ranges: RangePolicy = RangePolicy()
    quantize: QuantizePolicy = QuantizePolicy()
    keep: KeepPolicy = KeepPolicy()
