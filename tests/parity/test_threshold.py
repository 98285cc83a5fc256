"""The fixed path against the threshold path: equal where the counts are each image's own, counted where not."""

import pytest
import torch

from tests.helpers import small_images, small_tofe
from tofe_export.data.images import Batch
from tofe_export.model.fixed_path import FixedPath
from tofe_export.model.flops import tofe_macs
from tofe_export.parity.threshold import against_threshold


def batches(images: torch.Tensor) -> list[Batch]:
    return [Batch(part, torch.zeros(len(part), dtype=torch.int64), ("x",) * len(part)) for part in images.split(3)]


@pytest.mark.parametrize("approximator", ["bottleneck", "discard"])
def test_an_image_with_the_fixed_counts_is_the_same_in_both(approximator: str) -> None:
    network = small_tofe(approximator=approximator)
    (single,) = network.forward_threshold(small_images(1, 4))
    counts = tuple(int((trace.scores > 0).sum()) for trace in single.stages)
    found = against_threshold(network, counts, batches(small_images(1, 4)), labelled=True).document().to_dict()
    assert found["top1_agreement"] == 1.0
    assert found["kl_mean"] < 1e-9
    assert found["gmacs"]["threshold"] == pytest.approx(found["gmacs"]["fixed"])
    for stage, count in zip(found["stages"], counts, strict=True):
        assert stage["histogram"] == [[count, 1]]
        assert stage["overlap"] == 1.0
        assert stage["margin_median"] is None, "no token is kept by one path alone"


def test_counts_of_every_image_by_hand() -> None:
    network, images = small_tofe(), small_images(8, 3)
    found = against_threshold(network, (8, 5, 3), batches(images), labelled=True).document().to_dict()
    singles = network.forward_threshold(images)
    for index, stage in enumerate(found["stages"]):
        counts = [int((single.stages[index].scores > 0).sum()) for single in singles]
        assert dict(map(tuple, stage["histogram"])) == {count: counts.count(count) for count in counts}
        assert stage["kept_mean"] == pytest.approx(sum(counts) / 8)
        assert (stage["kept_min"], stage["kept_max"]) == (min(counts), max(counts))
        assert 0 < stage["overlap"] < 1
    costs = [tofe_macs(network, [float((t.scores > 0).sum()) for t in single.stages]) / 1e9 for single in singles]
    assert found["gmacs"]["threshold"] == pytest.approx(sum(costs) / 8)
    assert found["samples"] == 8
    expected = torch.cat([single.logits for single in singles]).argmax(1)
    fixed = network.forward_fixed(images, FixedPath((8, 5, 3))).logits.argmax(1)
    assert found["top1_agreement"] == pytest.approx(float((expected == fixed).float().mean()))
    assert found["accuracy"]["threshold"] == pytest.approx(float((expected == 0).float().mean()))


def test_the_first_stage_differs_by_the_tokens_between_count_and_threshold() -> None:
    network, images = small_tofe(), small_images(1, 5)
    (single,) = network.forward_threshold(images)
    scores = single.stages[0].scores[0]
    count = int((scores > 0).sum())
    keep = count + 2
    found = against_threshold(network, (keep, 5, 3), batches(images), labelled=False).document().to_dict()
    assert found["accuracy"] is None
    assert found["stages"][0]["overlap"] == pytest.approx(count / keep)
    added = scores.sort(descending=True).values[count:keep].abs()
    assert found["stages"][0]["margin_median"] == pytest.approx(float(added.double().mean()), rel=1e-5)
