"""quantize.json and sensitivity.json: what 8 bits cost and gain, for one model on one machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tofe_export.documents.base import Document, Part
from tofe_export.documents.benchmark import BenchSettings
from tofe_export.documents.fields import Amount, Count, Flag, Positive, Precision, Text
from tofe_export.documents.images import ImagesRead
from tofe_export.documents.machine import Machine
from tofe_export.documents.manifest import LayerCounts
from tofe_export.documents.recipe import CalibrationRecipe
from tofe_export.documents.verification import Agreement


class PrecisionAgreement(Agreement):
    """One precision against float32, by the rules of verify."""

    precision: Precision


class OmittedPrecision(Part):
    """A precision that could not be compared, and why."""

    precision: Precision
    why: Text


class Speed(Part):
    """How fast a precision runs at one batch size.

    Its speed-up is over float32 in the same rounds; `speedups` are those of the processes, over which its 95% interval
    is taken. A single process has none.
    """

    precision: Precision
    batch: Positive
    p50_ms: Amount
    speedup: Amount
    speedup_low: Amount | None = None
    speedup_high: Amount | None = None
    speedups: tuple[Amount, ...] = ()

    @property
    def interval(self) -> tuple[float, float]:
        """The interval; without one, the speed-up itself."""
        if self.speedup_low is None or self.speedup_high is None:
            return self.speedup, self.speedup
        return self.speedup_low, self.speedup_high


class BatchVerdict(Part):
    """What to ship for one batch size.

    Attributes:
        ship: of `as_fast` the most exact precision.
        as_fast: the precisions that agree with float32 and are as fast as the fastest of those, as far as can be told.
        reason: how fast the quantized one is, a sentence.
    """

    batch: Positive
    ship: Precision
    as_fast: tuple[Precision, ...]
    reason: Text


class ShippingVerdict(Part):
    """What to ship: a precision (where batch sizes disagree, that of the largest), a sentence, and its reasons."""

    ship: Precision
    summary: Text
    reasons: tuple[Text, ...]
    by_batch: tuple[BatchVerdict, ...]


class Quantization(Document):
    """What quantize found.

    Attributes:
        model: the file that was written.
        around: the precision of everything that is not quantized.
        coarse: layer -> ranges that are wider than its values.
        agreement: each precision against float32; `left_out` says which could not be compared.
        speed: each precision, float32 included, at each batch size.
        passed: of the quantized model.
    """

    schema_: Literal["tofe-export/quantize/1"] = Field(default="tofe-export/quantize/1", alias="schema")
    model: Text
    precision: Precision
    around: Precision
    recipe: CalibrationRecipe
    layers: LayerCounts
    coarse: dict[Text, Count] = {}
    data: Text
    images: ImagesRead
    agreement: tuple[PrecisionAgreement, ...]
    left_out: tuple[OmittedPrecision, ...] = ()
    backend: Text
    speed: tuple[Speed, ...]
    verdict: ShippingVerdict
    passed: Flag | None
    machine: Machine
    versions: dict[Text, Text]
    settings: BenchSettings

    @property
    def quantized(self) -> PrecisionAgreement:
        """The quantized model's agreement with float32."""
        return next(one for one in self.agreement if one.precision == self.precision)


class KindCost(Agreement):
    """What it costs to quantize one kind of layer alone."""

    kind: Text
    layers: Count
    quantized_by_recipe: Flag


class Sensitivity(Document):
    """The kinds of layers, the costliest first."""

    schema_: Literal["tofe-export/sensitivity/1"] = Field(default="tofe-export/sensitivity/1", alias="schema")
    model: Text
    precision: Precision
    kinds: tuple[KindCost, ...]
    images: ImagesRead
