"""The ranking is the network's own, and the judgment that of the fixed path."""

import pytest
import torch

from tests.helpers import TWO_STAGES, refused_as, small_images, small_tofe
from tofe_export.data.images import Batch
from tofe_export.errors import CheckFailedError
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.tofe import ToFe
from tofe_export.progress import silent
from tofe_export.tuning.quality import judge, rank_tokens_of


def two_batches(labels: list[list[int]] | None = None) -> list[Batch]:
    images = small_images(4)
    return [
        Batch(
            images=images[2 * number : 2 * number + 2],
            labels=None if labels is None else torch.tensor(labels[number]),
            names=("a", "b"),
        )
        for number in range(2)
    ]


@pytest.fixture(scope="module")
def model() -> ToFe:
    return small_tofe(**TWO_STAGES)


def test_what_is_lost_falls_from_everything_to_nothing(model: ToFe) -> None:
    ranked = rank_tokens_of(model, two_batches(), labelled=False)
    assert [len(row) for row in ranked.lost] == [17, 17]
    singles = model.forward_threshold(small_images(4))
    for stage, row in enumerate(ranked.lost):
        assert row[0] == pytest.approx(1.0)
        assert row[-1] == pytest.approx(0.0, abs=1e-9)
        assert list(row) == sorted(row, reverse=True)
        matters = torch.cat([single.stages[stage].scores for single in singles]).sigmoid().double()
        best = matters.sort(dim=1, descending=True).values
        assert row[5] == pytest.approx(float(best[:, 5:].sum() / best.sum()))


def test_the_reference_is_the_threshold_path_and_what_is_judged_the_fixed_one(model: ToFe) -> None:
    reference = torch.cat([single.logits for single in model.forward_threshold(small_images(4))]).argmax(1)
    right = reference.tolist()
    wrong = [right[0], (right[1] + 1) % 5, right[2], (right[3] + 1) % 5]
    ranked = rank_tokens_of(model, two_batches([wrong[:2], wrong[2:]]), labelled=True)
    assert torch.equal(torch.cat(ranked.classes), reference)
    for keep in ((16, 16), (8, 5), (1, 1)):
        fixed = model.forward_fixed(small_images(4), FixedPath(keep, rearranged=True)).logits.argmax(1)
        agreement, accuracy = judge(model, keep, ranked, "", silent)
        assert agreement == float((fixed == reference).float().mean())
        assert accuracy == float((fixed == torch.tensor(wrong)).float().mean())


def test_labels_of_other_classes_are_not_used(model: ToFe) -> None:
    ranked = rank_tokens_of(model, two_batches([[0, 1], [2, 3]]), labelled=False)
    assert judge(model, (8, 5), ranked, "", silent)[1] is None


def test_where_scores_only_rank_the_reference_keeps_nearly_all() -> None:
    model = small_tofe(selector="cls-attention", approximator="fuse", **TWO_STAGES)
    ranked = rank_tokens_of(model, two_batches(), labelled=False)
    assert judge(model, (15, 15), ranked, "", silent)[0] == 1.0
    assert ranked.lost[0][8] < 0.5  # the better half has most of the attention


def test_scores_that_are_not_finite_are_refused() -> None:
    model = small_tofe(**TWO_STAGES)
    with torch.no_grad():
        model.stages[1].selector.out.bias.fill_(float("nan"))  # type: ignore[union-attr, operator]
    with refused_as("scores-not-finite", CheckFailedError):
        rank_tokens_of(model, two_batches(), labelled=False)
