"""Ties, NaN and infinities: written out in standard operators, both operators mean the same to every reader."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import require_openvino
from tests.readers import operators
from tests.readers.comparing import require_same, run_in_onnxruntime, run_in_openvino, run_in_tract
from tofe_export.runners.base import Array

Run = Callable[[bytes, dict[str, Array], list[str]], dict[str, Array]]


@pytest.fixture(params=["onnxruntime", "openvino", "tract"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    reader = request.param
    if reader == "openvino":
        require_openvino()
    else:
        pytest.importorskip(reader, reason=f"{reader} is not installed")

    def in_tract(model: bytes, feeds: dict[str, Array], names: list[str]) -> dict[str, Array]:
        (tmp_path / "model.onnx").write_bytes(model)
        return run_in_tract(tmp_path / "model.onnx", feeds, names)

    readers: dict[str, Run] = {
        "onnxruntime": lambda model, feeds, _: run_in_onnxruntime(model, feeds),
        "openvino": run_in_openvino,
        "tract": in_tract,
    }
    return readers[reader]


@pytest.mark.parametrize("row", operators.ROWS)
def test_scores_that_tell_readers_apart(run: Run, row: str) -> None:
    index = list(operators.ROWS).index(row)
    scores = operators.scores()[index : index + 1]
    feeds = {"tokens": operators.tokens_for(scores), "scores": scores}
    found = run(operators.partition(), feeds, operators.PARTITION)
    require_same(operators.expected_of(scores), found)
    back = run(operators.rearrange(), found, operators.REARRANGE)
    assert np.array_equal(back["tokens"], feeds["tokens"])


def test_all_of_them_in_one_batch(run: Run) -> None:
    scores = np.concatenate([operators.scores(), operators.SUBNORMAL])
    feeds = {"tokens": operators.tokens_for(scores), "scores": scores}
    require_same(operators.expected_of(scores), run(operators.partition(), feeds, operators.PARTITION))


@pytest.mark.parametrize("count", [1, 2, 49, 196, 577])
@pytest.mark.parametrize("digits", [0, 1])
def test_many_ties_at_real_sizes(run: Run, count: int, digits: int) -> None:
    scores = np.round(np.random.default_rng(count).normal(size=(2, count)), digits).astype(np.float32)
    feeds = {"tokens": operators.tokens_for(scores), "scores": scores}
    keep = (count + 1) // 2
    require_same(operators.expected_of(scores, keep), run(operators.partition(count, keep), feeds, operators.PARTITION))


def test_another_order_of_ties_would_show() -> None:
    """Every row with equal scores, NaN among them, tells the right order from that of the higher index first."""
    for scores, right in zip(operators.scores(), operators.expected_of(operators.scores())["perm"], strict=True):
        keys = np.where(np.isnan(scores), -np.inf, scores)
        wrong = np.lexsort((-np.arange(len(keys)), -keys))
        assert np.array_equal(np.sort(wrong), np.sort(right))
        assert np.array_equal(wrong, right) == (len(np.unique(keys)) == len(keys))
