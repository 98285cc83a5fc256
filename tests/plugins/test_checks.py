"""What does not fit an operator is said in words before anything is compiled."""

import pytest
from tofe_plugins.checks import OperatorError, check_counts, check_dtypes, check_ranks


@pytest.mark.parametrize(
    ("dtypes", "words"),
    [
        ({"tokens": "int32", "scores": "float32"}, "moves rows of float32, float16 or bfloat16; tokens is int32"),
        ({"tokens": "float16", "scores": "float16"}, "takes scores as float32, not float16"),
        ({"kept": "float16", "frozen": "float32", "perm": "int32"}, "rows of one type; it got kept float16 and frozen"),
        ({"kept": "float16", "frozen": "float16", "perm": "int64"}, "takes perm as int32, not int64"),
    ],
)
def test_dtypes(dtypes: dict[str, str], words: str) -> None:
    with pytest.raises(OperatorError, match=words):
        check_dtypes("Operator", dtypes)


def test_ranks() -> None:
    check_ranks("Operator", {"tokens": 3, "scores": 2})
    with pytest.raises(OperatorError, match="takes tokens with 3 axes, not 4"):
        check_ranks("Operator", {"tokens": 4, "scores": 2})


@pytest.mark.parametrize(
    ("patches", "keep", "prefix", "rows", "words"),
    [
        (196, 197, 1, 197, "cannot keep 197 of 196"),
        (196, 0, 1, 197, "cannot keep 0 of 196"),
        (5000, 10, 0, 5000, "1 to 4096 patch tokens, not 5000"),
        (196, 96, 2, 197, "197 rows an image, which are not 2 prefix and 196 patch rows"),
        (196, 1, 96, 197, "are not 96 prefix and 196"),  # keep and prefix exchanged
    ],
)
def test_counts(patches: int, keep: int, prefix: int, rows: int, words: str) -> None:
    check_counts("Operator", 196, 96, 1, 197)
    with pytest.raises(OperatorError, match=words):
        check_counts("Operator", patches, keep, prefix, rows)
