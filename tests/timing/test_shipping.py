"""Which precision to ship: by what agrees, by intervals, for each batch size."""

import pytest
import torch

from tofe_export.documents.quantization import PrecisionAgreement, ShippingVerdict, Speed
from tofe_export.parity.comparison import Comparison
from tofe_export.parity.tolerances import TOLERANCES
from tofe_export.timing.shipping import judge

Interval = tuple[float, float, float]


def compared(precision: str, agreeing: float = 1.0, images: int = 100) -> PrecisionAgreement:
    comparison = Comparison(TOLERANCES[precision], samples=images, reference="float32")
    reference = torch.eye(2).repeat(images, 1)[:images]
    deployed = reference.clone()
    wrong = round((1 - agreeing) * images)
    deployed[:wrong] = deployed[:wrong].flip(1)
    comparison.logits.add(reference, deployed)
    return PrecisionAgreement(precision=precision, **dict(comparison.agreement()))


def speeds(batch: int = 8, **ratios: Interval) -> list[Speed]:
    every = {"fp32": (1.0, 1.0, 1.0), **ratios}
    return [speed(name, batch, 10.0 / ratio[0], ratio) for name, ratio in every.items()]


def speed(precision: str, batch: int, p50_ms: float, ratio: Interval) -> Speed:
    median, low, high = ratio
    return Speed(precision=precision, batch=batch, p50_ms=p50_ms, speedup=median, speedup_low=low, speedup_high=high)


FP16, INT8 = compared("fp16"), compared("int8")
SLOW = (0.9, 0.8, 0.95)


def reason(verdict: ShippingVerdict, batch: int = 8) -> str:
    (sentence,) = [text for text in verdict.reasons if text.startswith(f"At batch {batch} ")]
    return sentence


@pytest.mark.parametrize(
    ("fp16", "int8", "ship", "sentence"),
    [
        (SLOW, (2.0, 1.9, 2.1), "int8", "At batch 8 INT8 is 2.00 times as fast as float32."),
        (
            (2.16, 2.12, 2.2), (2.0, 1.9, 2.1), "fp16",
            "At batch 8 INT8 is 2.00 times as fast as float32, and 8% slower than FP16.",
        ),
        (
            (2.16, 2.0, 2.2), (2.0, 1.9, 2.1), "fp16",
            "At batch 8 INT8 is 2.00 times as fast as float32, and there is no difference from FP16 beyond noise.",
        ),
        (
            (1.9, 1.8, 2.2), (2.0, 1.9, 2.1), "fp16",  # of two equally fast ones the more exact
            "At batch 8 INT8 is 2.00 times as fast as float32, and there is no difference from FP16 beyond noise.",
        ),
        (
            SLOW, (1.1, 0.98, 1.2), "fp32",
            "At batch 8 INT8 is as fast as float32: no difference beyond noise (0.98 to 1.20 times).",
        ),
        (SLOW, (0.8, 0.7, 0.9), "fp32", "At batch 8 INT8 is 25% slower than float32."),
        (SLOW, (0.996, 0.99, 0.999), "fp32", "At batch 8 INT8 is 0.4% slower than float32."),
        (SLOW, (0.2, 0.2, 0.2), "fp32", "At batch 8 INT8 is 5.0 times slower than float32."),
    ],
)  # fmt: skip
def test_the_fastest_that_agrees(fp16: Interval, int8: Interval, ship: str, sentence: str) -> None:
    verdict = judge("int8", [FP16, INT8], speeds(fp16=fp16, int8=int8))
    assert verdict.ship == ship
    assert verdict.summary == f"Ship {ship.upper()}."
    assert reason(verdict) == sentence
    assert "100.0% of 100 images the class of float32" in verdict.reasons[0]


def test_batch_sizes_that_disagree_get_a_verdict_each() -> None:
    """The case of the issue: slower at batch 1, faster at batch 8."""
    timed = speeds(1, fp16=SLOW, int8=(0.96, 0.95, 0.97)) + speeds(8, fp16=SLOW, int8=(1.09, 1.05, 1.12))
    verdict = judge("int8", [FP16, INT8], timed)
    assert reason(verdict, 1) == "At batch 1 INT8 is 4% slower than float32."
    assert reason(verdict, 8) == "At batch 8 INT8 is 1.09 times as fast as float32."
    assert verdict.summary == "Ship FP32 at batch 1 and INT8 at batch 8."
    assert verdict.ship == "int8", "of the largest batch"
    assert [(one.batch, one.ship) for one in verdict.by_batch] == [(1, "fp32"), (8, "int8")]
    three = judge("int8", [FP16, INT8], [*timed, *speeds(32, fp16=(3.0, 2.9, 3.1), int8=(2.0, 1.9, 2.1))])
    assert three.summary == "Ship FP32 at batch 1, INT8 at batch 8 and FP16 at batch 32."


def test_where_noise_hides_the_difference_at_one_batch_size_the_other_decides() -> None:
    timed = speeds(1, fp16=SLOW, int8=(0.99, 0.95, 1.03)) + speeds(8, fp16=SLOW, int8=(1.09, 1.05, 1.12))
    verdict = judge("int8", [FP16, INT8], timed)
    assert reason(verdict, 1).endswith("no difference beyond noise (0.95 to 1.03 times).")
    assert [one.as_fast for one in verdict.by_batch] == [("fp32", "int8"), ("int8",)]
    assert verdict.summary == "Ship INT8."
    timed = speeds(1, fp16=SLOW, int8=(1.09, 1.05, 1.12)) + speeds(8, fp16=SLOW, int8=(0.99, 0.95, 1.03))
    assert judge("int8", [FP16, INT8], timed).summary == "Ship INT8.", "whichever batch size decides"


def test_few_images_are_called_few() -> None:
    verdict = judge("int8", [compared("int8", images=1)], speeds(int8=(2.0, 1.9, 2.1)))
    assert "Only 1 held-out image was compared: take more." in verdict.reasons
    assert "of 1 image the class" in verdict.reasons[0]
    assert "Only" not in " ".join(judge("int8", [compared("int8", images=50)], speeds(int8=(2, 2, 2))).reasons)


def test_what_does_not_agree_is_not_shipped_however_fast() -> None:
    fast = {"fp16": (1.5, 1.4, 1.6), "int8": (4.0, 3.9, 4.1)}
    verdict = judge("int8", [FP16, compared("int8", 0.9)], speeds(**fast))
    assert verdict.ship == "fp16"
    assert any("Only 90.00% of the images" in text for text in verdict.reasons)
    assert reason(verdict) == "At batch 8 INT8 is 4.00 times as fast as float32."


def test_a_noisy_form_does_not_bring_back_what_another_beats() -> None:
    verdict = judge("int8", [FP16, INT8], speeds(fp16=(1.3, 0.9, 4.0), int8=(1.25, 1.1, 1.28)))
    assert verdict.by_batch[0].as_fast == ("fp16", "int8")
    assert verdict.summary == "Ship FP16."


def test_forms_are_set_beside_each_other_by_the_figures_that_decided() -> None:
    rows = [
        speed("fp32", 8, 10.0, (1, 1, 1)),
        speed("fp16", 8, 8.0, (1.5, 1.45, 1.55)),
        speed("int8", 8, 7.0, (1.2, 1.15, 1.25)),
    ]
    assert "25% slower than FP16" in reason(judge("int8", [FP16, INT8], rows))


def test_without_intervals_the_fastest_is_shipped_and_a_reason_says_what_is_not_known() -> None:
    rows = [
        Speed(precision=name, batch=8, p50_ms=10.0 / ratio, speedup=ratio, speedups=(ratio,))
        for name, ratio in {"fp32": 1.0, "fp16": 0.9, "int8": 1.01}.items()
    ]
    verdict = judge("int8", [FP16, INT8], rows)
    assert verdict.ship == "int8"
    assert reason(verdict) == "At batch 8 INT8 is 1.01 times as fast as float32."
    assert any(text.startswith("Timed in one process") for text in verdict.reasons)
    assert not any(text.startswith("Timed in one process") for text in judge("int8", [INT8], speeds(int8=SLOW)).reasons)
