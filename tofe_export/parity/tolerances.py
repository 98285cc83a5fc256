"""How far a deployed model may be from PyTorch: one table of limits per precision, each with its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace

from tofe_export.documents.fields import PRECISIONS, Precision
from tofe_export.errors import InputError, nearest


@dataclass(frozen=True)
class Limit:
    """One row of the table.

    Attributes:
        meaning: what is limited.
        reason: why the values are what they are.
        fp32, fp16, bf16, int8, fp8: the limit in each precision.
    """

    meaning: str
    reason: str
    fp32: float
    fp16: float
    bf16: float
    int8: float
    fp8: float


# float32: twelve blocks of sums in another order stay near 1e-5. FP16 rounds to 11 bits at every step (measured for
# DeiT-S: benchmarks/results/engine_cpu.json), BF16 to 8, which is eight times as coarse. INT8 has one scale per tensor:
# a value is off by up to a 254th of the tensor's greatest at the input of every product (measured:
# benchmarks/results/quantization.json); FP8 has 4 bits of significand, so a value is off by up to a 16th of itself.
LIMITS: dict[str, Limit] = {
    "tokens_max_abs": Limit(
        "largest difference of a token after a stage, on the same selection; beyond 1, relative to the largest token",
        "sums in another order (fp32), or the precision's rounding, gathered over the blocks of a stage",
        fp32=1e-4, fp16=2e-2, bf16=0.16, int8=0.2, fp8=0.4,
    ),
    "tokens_relative": Limit(
        "largest distance of a token, on the same selection, as a share of the tokens' spread around their mean",
        "several times what a small trained network and a random DeiT-S showed (bf16: 8 times fp16's); where two "
        "tokens were exchanged or an approximator left out the small one mostly showed more than 0.2",
        fp32=1e-4, fp16=2e-2, bf16=0.16, int8=0.2, fp8=0.4,
    ),
    "logits_max_abs": Limit(
        "largest difference of a logit (or feature), on the same selection; beyond 1, relative to the largest one",
        "as for tokens: with the same tokens nothing else may differ",
        fp32=1e-4, fp16=2e-2, bf16=0.16, int8=0.2, fp8=0.4,
    ),
    "selection_overlap": Limit(
        "least share of kept tokens that both models chose, per stage",
        "a near-tie may flip one token in a thousand in fp32; coarser scores tie more often",
        fp32=0.999, fp16=0.99, bf16=0.95, int8=0.95, fp8=0.9,
    ),
    "score_gap": Limit(
        "how far below a frozen token a kept one may score in PyTorch, on the deployed tokens; beyond 1, relative",
        "other choices pass as near-ties only: within what rounding does to a score",
        fp32=1e-4, fp16=2e-2, bf16=0.16, int8=0.1, fp8=0.2,
    ),
    "top1_agreement": Limit(
        "least share of images with the same best class",
        "a flipped token may change the class of an image whose two best logits lie close",
        fp32=0.99, fp16=0.99, bf16=0.95, int8=0.95, fp8=0.95,
    ),
    "accuracy_lost": Limit(
        "accuracy that may be lost where labels are known (0.01 is a point); a single image always may",
        "what a user would notice; the same in every precision",
        fp32=0.01, fp16=0.01, bf16=0.01, int8=0.01, fp8=0.01,
    ),
    "kl_mean": Limit(
        "mean KL divergence of the classes' probabilities from PyTorch's, in nats, each model on its own selection",
        "half the squared difference of the logits, and a flipped token changes an image's logits for good",
        fp32=1e-3, fp16=1e-2, bf16=5e-2, int8=0.1, fp8=0.2,
    ),
    "cosine_min": Limit(
        "least cosine similarity of an image's logits (or features), where the deployed model's selection is unknown",
        "one flipped token turns an image's logits a little; the mean over images stays near 1",
        fp32=0.999, fp16=0.999, bf16=0.99, int8=0.9, fp8=0.9,
    ),
}  # fmt: skip
_SHARES = ("selection_overlap", "top1_agreement", "accuracy_lost", "cosine_min")


@dataclass(frozen=True)
class Tolerance:
    """The limits of one precision, or a user's own; see `LIMITS` for what each means.

    Attributes:
        overridden: names of those that are the user's own.
    """

    tokens_max_abs: float
    tokens_relative: float
    logits_max_abs: float
    selection_overlap: float
    score_gap: float
    top1_agreement: float
    accuracy_lost: float
    kl_mean: float
    cosine_min: float
    overridden: tuple[str, ...] = ()

    def values(self) -> dict[str, float]:
        """`tolerances` in verify.json."""
        return {name: value for name, value in asdict(self).items() if name != "overridden"}


TOLERANCES: dict[Precision, Tolerance] = {
    precision: Tolerance(**{name: getattr(limit, precision) for name, limit in LIMITS.items()})
    for precision in PRECISIONS
}

Overrides = Mapping[str, float]
"""The user's own limits: "logits_max_abs" for every precision, "int8.kl_mean" for one."""


def check_overrides(overrides: Overrides, precisions: Collection[str] = PRECISIONS) -> None:
    """Refuses limits that are invalid, or that would not limit anything of the `precisions` that are compared.

    Raises:
        InputError: no such limit or precision, a value that is invalid, or a precision that nothing is in.
    """
    for name, value in overrides.items():
        precision, dot, limit = name.rpartition(".")
        if limit not in LIMITS:
            example = nearest(limit, LIMITS, 1)
            raise InputError(
                f"There is no tolerance {limit!r}.", f"Write {example}={value:g}.", code="tolerance-name", name=limit
            )
        if dot and precision not in PRECISIONS:
            raise InputError(
                f"There is no precision {precision!r}.",
                f"Write one of {', '.join(PRECISIONS)} before the point.",
                code="tolerance-precision",
                name=precision,
            )
        top = 1.0 if limit in _SHARES else math.inf
        if not (0 <= value <= top and math.isfinite(value)):
            raise InputError(
                f"The tolerance {limit} cannot be {value:g}.",
                f"Give a number from 0 to 1, such as {limit}=0.99." if top == 1 else f"Write {limit}=1e-3.",
                code="tolerance-value",
                name=limit,
            )
        if precision and precision not in precisions:
            here = ", ".join(sorted(precisions))
            raise InputError(
                f"The tolerance {name} is for models in {precision}; here is only {here}.",
                f"Write {limit}=..., or name {here}.",
                code="tolerance-unused",
                name=name,
            )


def tolerance_of(precision: Precision, overrides: Overrides) -> Tolerance:
    """The limits of `precision` with the user's own; one that names the precision beats one that names none."""
    own = {name: value for name, value in overrides.items() if "." not in name}
    named = (name.rpartition(".") for name in overrides)
    own |= {limit: overrides[f"{precision}.{limit}"] for where, _, limit in named if where == precision}
    return replace(TOLERANCES[precision], **own, overridden=tuple(sorted(own)))
