"""How far a deployed model may be from PyTorch, per precision, each limit with its reason."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Limits of one precision.

    Attributes:
        logits_max_abs: largest difference of a logit, the selection being the same; for logits beyond 1 it is
            taken relative to the largest one.
        selection_overlap: least share of kept tokens that both models chose, per stage.
        score_gap: how far below a frozen token a kept one may score in PyTorch, given the tokens that the deployed
            model kept before; for scores beyond 1 relative to the largest one. So other choices pass only as near-ties.
        top1_agreement: least share of images with the same best class.
        cosine_min: least cosine similarity of an image's logits, where the deployed model does not show its selection.
    """

    logits_max_abs: float
    selection_overlap: float
    score_gap: float
    top1_agreement: float
    cosine_min: float


TOLERANCES = {
    # Twelve blocks of float32 sums in another order stay near 1e-5, for scores as for logits. A near-tie may flip one
    # token in a thousand, and with it the class of an image in a hundred; with the same tokens nothing may differ.
    "fp32": Tolerance(
        logits_max_abs=1e-4, selection_overlap=0.999, score_gap=1e-4, top1_agreement=0.99, cosine_min=0.999
    ),
    # A rounding to 11 bits at every step (measured for DeiT-S with random weights: benchmarks/results/engine_cpu.json).
    "fp16": Tolerance(
        logits_max_abs=2e-2, selection_overlap=0.99, score_gap=2e-2, top1_agreement=0.99, cosine_min=0.999
    ),
    # 8 bits: eight times the rounding of FP16.
    "bf16": Tolerance(
        logits_max_abs=0.16, selection_overlap=0.95, score_gap=0.16, top1_agreement=0.95, cosine_min=0.99
    ),
    # 8 bits with one scale a tensor: a value is off by up to a 254th of the tensor's greatest at the input of every
    # product. One flipped token changes an image's logits for good, hence the wide cosine; the mean stays near 1
    # (measured: benchmarks/results/quantization.json).
    "int8": Tolerance(logits_max_abs=0.2, selection_overlap=0.95, score_gap=0.1, top1_agreement=0.95, cosine_min=0.9),
    # 4 bits of significand: a value is off by up to a 16th of itself.
    "fp8": Tolerance(logits_max_abs=0.4, selection_overlap=0.9, score_gap=0.2, top1_agreement=0.95, cosine_min=0.9),
}
ACCURACY_LOST = 0.01  # what quantization may cost where labels are known: a point, in any precision
