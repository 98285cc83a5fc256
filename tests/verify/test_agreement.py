"""Two deployed forms on the same images: what differs, and when it is too much."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

from tofe_export.data.images import Batch
from tofe_export.model.selection import Layout
from tofe_export.runners.base import Array
from tofe_export.verify.agreement import Agreement, agree

TOKENS, KEEP = 6, (3,)
LAYOUT = Layout(TOKENS, rearranged=True, discarded=False)


class Fake:
    backend, precision = "fake", "fp32"

    def __init__(self, logits: list[list[float]], perm: list[list[int]]) -> None:
        self.logits, self.perm, self.at = np.array(logits, np.float32), np.array(perm, np.int32), 0

    def run(self, images: Array) -> dict[str, Array]:
        rows = slice(self.at, self.at + len(images))
        self.at += len(images)
        return {"logits": self.logits[rows], "stage0.perm": self.perm[rows]}

    def bind(self, images: Array) -> Callable[[], object]:
        return lambda: self.run(images)


def stream(labels: list[int] | None) -> Iterator[Batch]:
    for row in range(2):
        yield Batch(torch.zeros(1, 3, 2, 2), torch.tensor(labels[row : row + 1]) if labels else None, (f"image {row}",))


def found(logits: list[list[float]], perm: list[list[int]], labels: list[int] | None = None) -> Agreement:
    order = [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]]
    reference = Fake([[1, 0], [0, 1]], order)
    (result,) = agree(reference, {"int8": Fake(logits, perm)}, KEEP, LAYOUT, stream(labels), labels is not None)
    return result


def test_the_order_of_kept_tokens_is_no_difference() -> None:
    result = found([[1, 0], [0, 1]], [[2, 1, 0, 5, 4, 3], [0, 1, 2, 3, 4, 5]])
    assert result.least_overlap == 1
    assert result.logits.cosine_min == pytest.approx(1)
    assert result.accuracy_lost is None
    assert not result.failures


def test_other_tokens_other_classes_and_lost_accuracy_are_told() -> None:
    result = found([[1, 0], [1, 0]], [[0, 1, 3, 2, 4, 5], [0, 1, 2, 3, 4, 5]], labels=[0, 1])
    assert result.least_overlap == 5 / 6
    assert result.accuracy_lost == 0.5
    told = " ".join(result.failures)
    assert "Stage 0 selects other tokens: overlap 0.8333" in told
    assert "50.00% of the images get the same class" in told
    assert "loses 50.0% of accuracy" in told
    assert result.to_dict()["accuracy"] == {"reference": 1.0, "deployed": 0.5}


def test_labels_of_other_classes_do_not_count() -> None:
    assert found([[1, 0], [0, 1]], [[0, 1, 2, 3, 4, 5]] * 2).to_dict()["accuracy"] is None
