"""The table of limits: its copy in the documentation, and the user's own limits."""

from pathlib import Path

import pytest

from tofe_export.errors import InputError
from tofe_export.verify.tolerances import LIMITS, PRECISIONS, TOLERANCES, parse_overrides, require_used, tolerance_of

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
    overrides = parse_overrides(["logits_max_abs=1e-3", "int8.logits_max_abs=0.5", "fp16.kl_mean=0"])
    assert tolerance_of("fp32", overrides).logits_max_abs == 1e-3
    assert tolerance_of("fp32", overrides).overridden == ("logits_max_abs",)
    assert tolerance_of("int8", overrides).logits_max_abs == 0.5
    assert tolerance_of("fp16", overrides).overridden == ("kl_mean", "logits_max_abs")
    assert tolerance_of("bf16", {}) == TOLERANCES["bf16"]
    assert "overridden" not in tolerance_of("fp32", overrides).values()


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(InputError, match="fp4"):
        tolerance_of("fp4", {})


@pytest.mark.parametrize("value", ["inf", "nan", "1e999", "-1"])
def test_a_limit_that_limits_nothing_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="logits_max_abs cannot be"):
        parse_overrides([f"logits_max_abs={value}"])


def test_a_limit_for_a_precision_that_is_not_there() -> None:
    overrides = parse_overrides(["kl_mean=1", "int8.kl_mean=0.2"])
    require_used(overrides, {"fp32", "int8"})
    with pytest.raises(InputError, match=r"int8\.kl_mean is for models in int8; here is only fp32"):
        require_used(overrides, {"fp32"})
    with pytest.raises(InputError, match="was given twice"):
        parse_overrides(["int8.kl_mean=1", " int8.kl_mean =2"])
