"""The one sentence: which precision to ship."""

import pytest
import torch

from tofe_export.bench.timing import Ratio
from tofe_export.verify.agreement import Agreement
from tofe_export.workflows.verdict import Speed, judge


def agreement(precision: str, agreeing: float = 1.0) -> Agreement:
    result = Agreement(precision)
    reference = torch.eye(2).repeat(50, 1)
    deployed = reference.clone()
    wrong = round((1 - agreeing) * 100)
    deployed[:wrong] = deployed[:wrong].flip(1)
    result.logits.add(reference, deployed)
    return result


def speeds(**ratios: tuple[float, float, float]) -> list[Speed]:
    found = [Speed("fp32", 8, 10.0, Ratio(1, 1, 1))]
    return found + [Speed(name, 8, 10.0 / ratio[0], Ratio(*ratio)) for name, ratio in ratios.items()]


FP16, INT8 = agreement("fp16"), agreement("int8")


@pytest.mark.parametrize(
    ("ratios", "ship", "sentence"),
    [
        (
            {"fp16": (0.9, 0.8, 0.95), "int8": (2.0, 1.9, 2.1)},
            "int8",
            "INT8 is 2.00 times as fast as float32 at batch 8.",
        ),
        ({"fp16": (2.16, 2.0, 2.2), "int8": (2.0, 1.9, 2.1)}, "fp16", "It is 8% slower than FP16 at batch 8."),
        ({"fp16": (0.9, 0.8, 0.95), "int8": (1.1, 0.98, 1.2)}, "fp32", "INT8 is as fast as float32 at batch 8."),
        ({"fp16": (0.9, 0.8, 0.95), "int8": (0.8, 0.7, 0.9)}, "fp32", "INT8 is 25% slower than float32 at batch 8."),
        (
            {"fp16": (0.9, 0.8, 0.95), "int8": (0.2, 0.2, 0.2)},
            "fp32",
            "INT8 is 5.0 times slower than float32 at batch 8.",
        ),
    ],
)
def test_the_fastest_that_agrees(ratios: dict[str, tuple[float, float, float]], ship: str, sentence: str) -> None:
    verdict = judge("int8", [FP16, INT8], speeds(**ratios))
    assert (verdict.ship, verdict.fit) == (ship, True)
    assert sentence in verdict.reasons
    assert "100.0% of 100 images the class of float32" in verdict.reasons[0]


def test_few_images_are_called_few() -> None:
    few = Agreement("int8")
    few.logits.add(torch.eye(2)[:1], torch.eye(2)[:1])
    verdict = judge("int8", [few], speeds(int8=(2.0, 1.9, 2.1)))
    assert "Only 1 held-out image was compared: take more." in verdict.reasons
    assert "of 1 image the class" in verdict.reasons[0]


def test_what_does_not_agree_is_not_shipped_however_fast() -> None:
    fast = {"fp16": (1.5, 1.4, 1.6), "int8": (4.0, 3.9, 4.1)}
    verdict = judge("int8", [FP16, agreement("int8", 0.9)], speeds(**fast))
    assert (verdict.ship, verdict.fit) == ("fp16", False)
    assert any("Only 90.00% of the images" in reason for reason in verdict.reasons)
