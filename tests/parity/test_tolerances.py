"""The table of limits: its copy in the documentation, and the user's own limits."""

from pathlib import Path

import pytest

from tofe_export.errors import InputError
from tofe_export.parity.tolerances import LIMITS, PRECISIONS, TOLERANCES, check_overrides, tolerance_of

PAGE = (Path(__file__).parents[2] / "docs" / "verify.md").read_text()


@pytest.mark.parametrize("name", LIMITS)
def test_the_documentation_says_the_same(name: str) -> None:
    limit = LIMITS[name]
    values = " | ".join(f"{getattr(limit, precision):g}" for precision in PRECISIONS)
    assert f"| `{name}`: {limit.meaning} | {values} | {limit.reason} |" in PAGE


def test_coarser_precisions_are_never_held_to_more() -> None:
    for name, limit in LIMITS.items():
        values = [getattr(limit, precision) for precision in PRECISIONS if precision != "bf16"]
        least = name in ("selection_overlap", "top1_agreement", "cosine_min")
        assert values == sorted(values, reverse=least) or name == "score_gap", name


def test_a_limit_of_ones_own_is_recorded_and_the_precision_s_own_wins() -> None:
    overrides = {"logits_max_abs": 1e-3, "int8.logits_max_abs": 0.5, "fp16.kl_mean": 0.0}
    assert tolerance_of("fp32", overrides).logits_max_abs == 1e-3
    assert tolerance_of("fp32", overrides).overridden == ("logits_max_abs",)
    assert tolerance_of("int8", overrides).logits_max_abs == 0.5
    assert tolerance_of("fp16", overrides).overridden == ("kl_mean", "logits_max_abs")
    assert tolerance_of("bf16", {}) == TOLERANCES["bf16"]
    assert "overridden" not in tolerance_of("fp32", overrides).values()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_a_limit_that_limits_nothing_is_refused(value: float) -> None:
    with pytest.raises(InputError) as caught:
        check_overrides({"logits_max_abs": value})
    assert caught.value.code == "tolerance-value"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("logit_max_abs", "tolerance-name"),
        ("fp4.kl_mean", "tolerance-precision"),
        ("fp16.kl_mean", "tolerance-unused"),
        ("kl_mean", None),
        ("int8.kl_mean", None),
    ],
)
def test_a_limit_for_nothing_that_is_there_is_refused(name: str, code: str | None) -> None:
    if code is None:
        check_overrides({name: 0.2}, {"fp32", "int8"})
        return
    with pytest.raises(InputError) as caught:
        check_overrides({name: 0.2}, {"fp32", "int8"})
    assert caught.value.code == code
